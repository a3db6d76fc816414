#include "analysis.h"

#include "../lora/merge.h"
#include "../run/layer_run.h"
#include "../run/read_tensor.h"

#include <qmill/core/quality.h>
#include <qmill/numerics/rounding.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

constexpr std::int64_t kSmallestSide = 16;
constexpr double kMargin = 10;  // dB below the quality threshold

// Rounds a layer as the plan would store it, for the figures alone.
class RoundingQuantizer final : public Quantizer {
 public:
  const QuantizerInfo& info() const override {
    static const QuantizerInfo info = {"plain rounding", {}, "", {}, {}, false};
    return info;
  }

  StoredLayer quantize(const at::Tensor& weight, LayerContext& context) const override {
    const auto& [format, layout, options] = context.target();
    return {format->encode(round_to_nearest(weight, *format->grid(), layout, context), context.weight(), layout), {}};
  }
};

}  // namespace

Analysis::Analysis(const TensorSource& source, const ConvertOptions& options, const Merge* merge)
    : source_(source), options_(options), merge_(merge) {}
Analysis::~Analysis() = default;

std::string Analysis::inefficient(const Decision& decision, Scaling wanted_scaling) {
  const TensorInfo& weight = decision.source;
  const std::int64_t smallest = *std::min_element(weight.shape.begin(), weight.shape.end());
  if (smallest < kSmallestSide) return fmt::format("a side of {} is below {}", smallest, kSmallestSide);
  if (wanted_scaling == Scaling::block && decision.target.layout.scaling != Scaling::block) return decision.target.layout.note;
  if (decision.target.format->grid() == nullptr) return {};

  if (!tasks_) {
    constexpr std::uint64_t kPoolBytes = 128u << 20;
    tasks_ = std::make_unique<TaskPool>(options_.threads);
    buffers_ = std::make_shared<BufferPool>(kPoolBytes);
  }
  has_read_ = true;
  at::Tensor values = read_tensor(source_, decision.source_index, *buffers_, *tasks_);
  if (!decision.merges.empty()) values = merge_->apply(decision.source_index, std::move(values), *buffers_, *tasks_);
  static const RoundingQuantizer rounding;
  Decision rounded = decision;
  rounded.source = as_quantized(decision);
  rounded.quantizer = &rounding;
  const LayerResult result = run_layer(rounded, values, 0, {*tasks_, *buffers_, nullptr});
  const std::optional<double> sqnr = result.quality.sqnr_db;
  const double bound = options_.quality_threshold - kMargin;
  if (sqnr && !(*sqnr >= bound)) return fmt::format("plain rounding gives {:.1f} dB, below {:.1f}", *sqnr, bound);
  return {};
}

}  // namespace qmill
