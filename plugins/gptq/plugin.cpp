// GPTQ: each column is rounded so that it makes up for the errors of those before it, under the layer's real inputs.
#include <qmill/numerics/calibrated_rounding.h>
#include <qmill/plugin.h>

namespace gptq {

class GptqQuantizer final : public qmill::GridQuantizer {
 public:
  const qmill::QuantizerInfo& info() const override {
    static const qmill::QuantizerInfo info = make_info();
    return info;
  }

 protected:
  qmill::CodedWeight choose_codes(at::Tensor weight, const qmill::Grid& grid, const qmill::Layout& layout,
                                  qmill::LayerContext& context) const override {
    const qmill::Options& options = context.target().options;
    qmill::CalibratedRounding how = qmill::read_calibrated_options(options);
    how.activation_order = options.boolean("actorder");
    how.block_columns = options.boolean("fast") ? options.integer("block_size") : weight.size(1);
    if (options.boolean("turbo")) context.note("turbo is for GPUs: it changes nothing on a CPU");
    return qmill::round_calibrated(weight, grid, layout, qmill::inputs_in_stored_basis(layout, context).get(), how, context);
  }

 private:
  static qmill::QuantizerInfo make_info() {
    qmill::QuantizerInfo info;
    info.name = "gptq";
    info.summary = "column by column with error feedback, for the smallest error on real inputs";
    info.options = {{"actorder", false, "columns with the largest inputs first"},
                    {"fast", true, "in blocks of columns; off: one column after the other, for the same codes"},
                    {"turbo", false, "a fused kernel for GPUs"},
                    {"block_size", qmill::kBlockColumns, "columns in a block: speed only", 1}};
    for (qmill::OptionSpec& option : qmill::calibrated_options()) info.options.push_back(std::move(option));
    info.uses_calibration = true;
    return info;
  }
};

}  // namespace gptq

QMILL_PLUGIN("gptq", "1.0", QMILL_QUANTIZER("gptq", gptq::GptqQuantizer));
