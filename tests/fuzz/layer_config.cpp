#include <qmill/core/layer_config.h>
#include <qmill/error.h>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const qmill::LayerConfig config = qmill::parse_layer_config({reinterpret_cast<const char*>(data), size});
    for (const bool whole : {false, true}) qmill::most_specific(config, "model.blocks.17.attn.qkv", whole);
  } catch (const qmill::Error&) {
  }
  return 0;
}
