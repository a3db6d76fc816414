#include <qmill/error.h>
#include <qmill/stored_format.h>

#include <cstdlib>

using namespace qmill;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string marker(reinterpret_cast<const char*>(data), size);
  const TensorInfo weight = {"x.weight", DType::i8, {128, 512}};
  for (const std::vector<std::int64_t>& scale : std::vector<std::vector<std::int64_t>>{{}, {128}, {128, 1}, {2, 8}, {0, 3}}) {
    const StoredLayerInfo layer = {"x", weight, {{"x.weight_scale", DType::f32, scale}, {"x.scale_weight", DType::f32, scale}}, marker};
    for (const StoredFormat* format : builtin_formats()) {
      try {
        const std::optional<Layout> layout = format->recognise(layer);
        if (!layout) continue;
        const std::vector<TensorInfo> outputs = format->outputs(format->original(layer, *layout), *layout);
        if (outputs[0] != weight || outputs[1].elements() != TensorInfo{"", DType::f32, scale}.elements()) std::abort();
      } catch (const Error&) {
      }
    }
  }
  return 0;
}
