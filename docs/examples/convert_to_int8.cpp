// Converts one model to INT8, and one with QuIP and a LoRA merged into it.
#include <qmill/qmill.h>

using namespace qmill;

int main() {
  convert_to_int8({.input_file = "model.safetensors",
                   .output_file = "model_int8.safetensors",
                   .comfy_quant = true,
                   .filter_flags = {},
                   .calib_samples = 6144,
                   .seed = 42});

  convert_to_int8({.input_file = "base_model.safetensors",
                   .output_file = "quantized_model.safetensors",
                   .comfy_quant = true,
                   .filter_flags = {},
                   .calib_samples = 6144,
                   .seed = 42,
                   .merge_lora_path = "style_lora.safetensors",
                   .merge_lora_scale = 1.0,
                   .converter_kwargs = {{"optimizer", "quip"}}});
}
