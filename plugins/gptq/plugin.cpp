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
    return qmill::round_calibrated(weight, grid, layout, qmill::inputs_in_stored_basis(layout, context).get(),
                                   how_to_round(weight, context), context);
  }

  qmill::CodedWeight code_weight(const at::Tensor& weight, qmill::LayerContext& context) const override {
    if (context.target().options.boolean("turbo")) context.note("turbo is for GPUs: it changes nothing on a CPU");
    const std::int64_t part_rows = qmill::rows_at_once(weight, context.target().layout, context);
    if (part_rows == weight.size(0)) return GridQuantizer::code_weight(weight, context);
    return qmill::round_calibrated_in_parts(weight, part_rows, how_to_round(weight, context), context);
  }

 private:
  static qmill::CalibratedRounding how_to_round(const at::Tensor& weight, const qmill::LayerContext& context) {
    const qmill::Options& options = context.target().options;
    qmill::CalibratedRounding how = qmill::read_calibrated_options(options);
    how.activation_order = options.boolean("actorder");
    how.descent_passes = options.integer("descent_passes");
    how.block_columns = options.boolean("fast") ? options.integer("block_size") : weight.size(1);
    return how;
  }

  static qmill::QuantizerInfo make_info() {
    qmill::QuantizerInfo info;
    info.name = "gptq";
    info.summary = "column by column with error feedback, for the smallest error on real inputs";
    info.options = {{"actorder", false, "process the columns with the largest inputs first"},
                    {"fast", true, "work in blocks of columns; off: one column at a time, with the same codes"},
                    {"turbo", false, "a fused kernel for GPUs"},
                    {"block_size", qmill::kBlockColumns, "columns in a block; changes only the speed", 1}};
    qmill::OptionSpec passes{"descent_passes", std::int64_t{0},
                             "passes over all columns afterwards: each value moves to where the others make it cheapest", 0, 1000};
    passes.flag = "descent-passes";
    info.options.push_back(std::move(passes));
    for (qmill::OptionSpec& option : qmill::calibrated_options()) info.options.push_back(std::move(option));
    info.uses_calibration = true;
    info.cost = 20;
    return info;
  }
};

}  // namespace gptq

QMILL_PLUGIN("gptq", "1.0", QMILL_QUANTIZER("gptq", gptq::GptqQuantizer));
