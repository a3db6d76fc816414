#include "layer_run.h"

#include "../plugin_host/guard.h"

#include <qmill/names.h>

#include <algorithm>
#include <chrono>

namespace qmill {
namespace {

class HostContext final : public LayerContext {
 public:
  HostContext(const Decision& decision, std::int64_t seed, const RunResources& resources)
      : decision_(decision), seed_(seed_for(static_cast<std::uint64_t>(seed), decision.source.name)), resources_(resources) {}

  const TensorInfo& weight() const override { return decision_.source; }
  const LayerTarget& target() const override { return decision_.target; }
  const LayerCalibration* calibration() const override { return nullptr; }
  std::uint64_t seed() const override { return seed_; }
  at::Tensor allocate(std::span<const std::int64_t> shape, DType dtype) override { return resources_.buffers.allocate(shape, dtype); }
  void parallel(std::int64_t tasks, const std::function<void(std::int64_t)>& body) override { resources_.tasks.parallel(tasks, body); }
  void note(std::string text) override { notes_.push_back(std::move(text)); }
  void check_cancelled() const override {
    if (resources_.cancel != nullptr && *resources_.cancel) throw Error(ErrorKind::cancelled, "interrupted");
  }

  std::vector<std::string> take_notes() { return std::move(notes_); }

 private:
  const Decision& decision_;
  const std::uint64_t seed_;
  const RunResources& resources_;
  std::vector<std::string> notes_;
};

void require_as_planned(const Decision& decision, const StoredLayer& stored) {
  const auto text = [](const TensorInfo& info) { return fmt::format("'{}' {} {}", info.name, dtype_name(info.dtype), info.shape_text()); };
  const auto reject = [&](const std::string& found, const std::string& expected) {
    throw Error(ErrorKind::plugin, fmt::format("it returned {}, its plan said {}", found, expected),
                "report this to the author of the plugin");
  };
  const std::vector<TensorInfo>& planned = decision.outputs;
  if (stored.tensors.size() != planned.size()) reject(fmt::format("{} tensors", stored.tensors.size()), fmt::format("{}", planned.size()));
  for (std::size_t i = 0; i < planned.size(); ++i) {
    const StoredTensor& tensor = stored.tensors[i];
    if (!tensor.data.defined() || !tensor.data.is_contiguous() || !tensor.data.device().is_cpu())
      reject(fmt::format("'{}' not contiguous on the CPU", tensor.name), text(planned[i]));
    if (const TensorInfo info = info_of(tensor); info != planned[i]) reject(text(info), text(planned[i]));
  }
}

}  // namespace

ErrorSums measure_errors(const at::Tensor& weight, std::span<const at::Tensor> stored, const Format& format, const Layout& layout,
                         TaskPool& tasks) {
  constexpr std::int64_t kValuesPerTask = 1 << 17;
  const std::int64_t rows = weight.dim() == 0 ? 1 : weight.size(0);
  const std::int64_t columns = rows == 0 ? 0 : weight.numel() / rows;
  const bool in_parts = format.info().rows_independent;
  const std::int64_t rows_per_task =
      in_parts ? std::max<std::int64_t>(1, kValuesPerTask / std::max<std::int64_t>(1, columns)) : std::max<std::int64_t>(rows, 1);
  const std::int64_t count = (rows + rows_per_task - 1) / rows_per_task;
  const DType dtype = dtype_of(weight);
  const auto* data = static_cast<const std::byte*>(weight.const_data_ptr());
  std::vector<ErrorSums> sums(static_cast<std::size_t>(count));
  tasks.parallel(count, [&](std::int64_t task) {
    thread_local std::vector<float> original, decoded;
    const std::int64_t begin = task * rows_per_task;
    const std::int64_t end = std::min(rows, begin + rows_per_task);
    // A few rows at a time stay in the cache from decoding to comparing.
    const std::int64_t step = in_parts ? std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(1, columns)) : rows;
    original.resize(static_cast<std::size_t>(step * columns));
    decoded.resize(static_cast<std::size_t>(step * columns));
    for (std::int64_t row = begin; row < end; row += step) {
      const std::int64_t last = std::min(end, row + step);
      const std::int64_t n = (last - row) * columns;
      load_f32(data + row * columns * (dtype_bits(dtype) / 8), dtype, n, original.data());
      format.decode_rows(stored, layout, row, last, decoded.data());
      add_errors(original.data(), decoded.data(), n, sums[static_cast<std::size_t>(task)]);
    }
  });
  ErrorSums total;
  for (const ErrorSums& part : sums) total.merge(part);
  return total;
}

LayerResult run_layer(const Decision& decision, const at::Tensor& weight, std::int64_t seed, const RunResources& resources) {
  const auto start = std::chrono::steady_clock::now();
  const std::string& plugin = decision.quantizer->info().name;
  const std::string& name = decision.source.name;
  HostContext context(decision, seed, resources);
  LayerResult result;
  result.stored = guard(plugin, "quantize", name, [&] {
    StoredLayer stored = decision.quantizer->quantize(weight, context);
    require_as_planned(decision, stored);
    return stored;
  });
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.notes = context.take_notes();
  std::vector<at::Tensor> tensors;
  for (const StoredTensor& tensor : result.stored.tensors) tensors.push_back(tensor.data);
  result.errors = guard(decision.target.format->info().name, "decode", name,
                        [&] { return measure_errors(weight, tensors, *decision.target.format, decision.target.layout, resources.tasks); });
  return result;
}

}  // namespace qmill
