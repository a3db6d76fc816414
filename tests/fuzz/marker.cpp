#include <qmill/error.h>
#include <qmill/format.h>

#include <cstdlib>

using namespace qmill;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string marker(reinterpret_cast<const char*>(data), size);
  const TensorInfo weight = {"x.weight", DType::i8, {128, 512}};
  for (const std::vector<std::int64_t>& scale : std::vector<std::vector<std::int64_t>>{{}, {128}, {128, 1}, {2, 8}, {0, 3}}) {
    try {
      const Format& int8 = *builtin_formats()[0];
      const std::optional<Layout> layout =
          int8.recognise({"x", weight, {{"x.weight_scale", DType::f32, scale}, {"x.scale_weight", DType::f32, scale}}, marker});
      if (layout && int8.outputs(weight, *layout)[1].elements() != TensorInfo{"", DType::f32, scale}.elements()) std::abort();
    } catch (const Error&) {
    }
  }
  return 0;
}
