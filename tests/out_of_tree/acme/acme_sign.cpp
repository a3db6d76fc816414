// A quantizer that never rounds to the nearest code: towards zero, or away from it.
#include <qmill/numerics/rounding.h>
#include <qmill/plugin.h>

#include <algorithm>
#include <cmath>

namespace acme {

class SignQuantizer final : public qmill::GridQuantizer {
 public:
  const qmill::QuantizerInfo& info() const override {
    static const qmill::QuantizerInfo info = [] {
      qmill::OptionSpec away;
      away.name = "away";
      away.initial = false;
      away.help = "round away from zero instead of towards it";
      return qmill::QuantizerInfo{"acme.sign", {}, "rounds by the sign of a value", {away}, {"int8"}, false};
    }();
    return info;
  }

 protected:
  qmill::CodedWeight choose_codes(at::Tensor weight, const qmill::Grid& grid, const qmill::Layout& layout,
                                  qmill::LayerContext& context) const override {
    const bool away = context.target().options.boolean("away");
    const qmill::TileScales stored = qmill::tile_scales(weight, grid, layout, context);
    qmill::CodedWeight coded{context.allocate(weight.sizes(), qmill::DType::i8), stored.values, {}, stored.common};
    const std::int64_t columns = weight.size(1);
    const auto* values = weight.const_data_ptr<float>();
    const auto* scales = coded.scales.const_data_ptr<float>();
    auto* codes = coded.codes.mutable_data_ptr<std::int8_t>();
    context.parallel(weight.size(0), [&](std::int64_t row) {
      const float* row_scales = scales + row / layout.tile_rows * coded.scales.size(1);
      for (std::int64_t i = 0; i < columns; ++i) {
        const float ratio = values[row * columns + i] / row_scales[i / layout.tile_columns];
        const float code = away ? std::copysign(std::ceil(std::fabs(ratio)), ratio) : std::trunc(ratio);
        codes[row * columns + i] =
            static_cast<std::int8_t>(std::clamp(code, static_cast<float>(grid.lowest), static_cast<float>(grid.highest)));
      }
    });
    return coded;
  }
};

}  // namespace acme

QMILL_PLUGIN("acme_sign", "0.3", QMILL_QUANTIZER("acme.sign", acme::SignQuantizer));
