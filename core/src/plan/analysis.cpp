#include "plan/analysis.h"

#include "host/guard.h"
#include "report/measure.h"
#include "report/rounded.h"

#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

constexpr std::int64_t kSmallestSide = 16;
constexpr double kMargin = 10;  // dB below the quality threshold

}  // namespace

Analysis::Analysis(const ValueSource& values, const ConvertOptions& options, const std::atomic<bool>* cancel)
    : values_(values), options_(options), cancel_(cancel) {}
Analysis::~Analysis() = default;

std::string Analysis::inefficient(const Decision& decision, std::optional<Scaling> wanted_scaling) {
  const Layout& layout = decision.target.layout;
  const std::int64_t smallest = *std::min_element(decision.source.shape.begin(), decision.source.shape.end());
  if (smallest < kSmallestSide) return fmt::format("a side of {} is below {}", smallest, kSmallestSide);
  if (wanted_scaling == Scaling::block && layout.scaling != Scaling::block) return layout.note;
  const CodedFormat* format = as_coded(*decision.target.format);
  if (format == nullptr) return {};

  if (!tasks_) {
    constexpr std::uint64_t kPoolBytes = 128u << 20;
    tasks_ = std::make_unique<TaskPool>(options_.run.threads);
    buffers_ = std::make_shared<BufferPool>(kPoolBytes);
  }
  has_read_ = true;
  const at::Tensor weight = values_.read(decision.source_index, *buffers_, *tasks_);
  const RowDecoder rounded = rounded_rows(decision.values, weight, *format, layout, {*tasks_, *buffers_, cancel_});
  const Measurement measured =
      guard(format->info().name, "decode", decision.source.name, [&] { return measure(weight, {&rounded, 1}, {}, *tasks_); });
  const std::optional<double> sqnr = layer_quality("", decision.label, measured.values).sqnr_db;
  const double bound = options_.quality_threshold - kMargin;
  if (sqnr && !(*sqnr >= bound)) return fmt::format("plain rounding gives {:.1f} dB, below {:.1f}", *sqnr, bound);
  return {};
}

}  // namespace qmill
