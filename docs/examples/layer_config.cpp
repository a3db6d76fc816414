// Reads choices per layer from a file.
#include <qmill/qmill.h>

using namespace qmill;

int main() {
  const LayerConfig layer_config = load_layer_config("layer_config.json");
  convert_to_int8({.input_file = "model.safetensors",
                   .output_file = "output.safetensors",
                   .comfy_quant = true,
                   .filter_flags = {},
                   .calib_samples = 6144,
                   .seed = 42,
                   .layer_config = layer_config});
}
