// A cast to F16, which says what it would lose.
#include <qmill/error.h>
#include <qmill/numerics/cast.h>
#include <qmill/plugin.h>

#include <fmt/format.h>

namespace fp16 {

class Fp16Quantizer final : public qmill::Quantizer {
 public:
  const qmill::QuantizerInfo& info() const override {
    static const qmill::QuantizerInfo info = [] {
      qmill::OptionSpec overflow;
      overflow.name = "overflow";
      overflow.initial = std::string("error");
      overflow.help = "values beyond the range of F16 (65504): an error, or clamped to the largest value and counted";
      overflow.choices = {"error", "clamp"};
      return qmill::QuantizerInfo{"fp16", {"f16", "float16"}, "cast to 16-bit floats", {overflow}, {"fp16"}, false};
    }();
    return info;
  }

  qmill::StoredLayer quantize(const at::Tensor& weight, qmill::LayerContext& context) const override {
    const bool clamp = context.target().options.text("overflow") == "clamp";
    at::Tensor values = context.allocate(weight.sizes(), qmill::DType::f16);
    const qmill::CastResult result = qmill::cast_values(weight, values, clamp);
    if (result.not_finite != 0)
      throw qmill::Error(qmill::ErrorKind::numeric, fmt::format("{} of {} values are not finite", result.not_finite, weight.numel()),
                         "repair the source, or keep this layer as it is with `exclude_layers`");
    if (result.overflowed != 0 && !clamp)
      throw qmill::Error(qmill::ErrorKind::numeric,
                         fmt::format("{} of {} values are beyond the range of F16 (65504)", result.overflowed, weight.numel()),
                         "use `fp16_overflow clamp`, or keep this layer as it is with `exclude_layers`");
    if (result.overflowed != 0)
      context.note(fmt::format("{} value{} clamped to the range of F16", result.overflowed, result.overflowed == 1 ? "" : "s"));
    return {{{context.weight().name, values}}, {}};
  }
};

}  // namespace fp16

QMILL_PLUGIN("fp16", "1.0", QMILL_QUANTIZER("fp16", fp16::Fp16Quantizer));
