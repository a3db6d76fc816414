// Reader, workers, writer: each tensor passes once, with a bounded number of bytes on the way.
#include "../io/output_file.h"
#include "../lora/merge.h"
#include "../plugin_host/guard.h"
#include "../publish/destination.h"
#include "channel.h"
#include "layer_run.h"
#include "read_tensor.h"
#include "shared_values.h"

#include <qmill/core/convert.h>
#include <qmill/names.h>
#include <qmill/numerics/cast.h>

#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

namespace qmill {
namespace {

namespace fs = std::filesystem;

// What the writer does next: write tensors, or copy one from file to file. `reserved` goes back to the budget after it.
struct WriteJob {
  std::vector<StoredTensor> tensors;
  std::optional<Extent> extent;
  std::string extent_name;
  std::uint64_t reserved = 0;
  bool is_layer = false;
};

std::uint64_t output_bytes(const Decision& decision) {
  std::uint64_t bytes = 0;
  for (const TensorInfo& output : decision.outputs) bytes += static_cast<std::uint64_t>(output.bytes());
  return bytes;
}

// What merging needs besides the source.
std::uint64_t merge_bytes(const Plan& plan, const Decision& decision) {
  return decision.merges.empty() ? 0 : plan.merge->working_bytes(decision.source_index);
}

// Read as a tensor of its own: a bias that is corrected goes with its layer.
bool is_worked_on(const Decision& decision) {
  return decision.action == Action::quantize || decision.action == Action::cast || decision.action == Action::merge;
}

// Enough for what the budget lets through: a layer larger than the budget goes alone.
std::uint64_t pool_bytes(const Plan& plan, std::uint64_t bytes_in_flight) {
  std::uint64_t largest = 0;
  std::uint64_t all = 0;
  for (const Decision& decision : plan.decisions) {
    if (!is_worked_on(decision)) continue;
    const std::uint64_t bytes = static_cast<std::uint64_t>(decision.source.bytes()) + merge_bytes(plan, decision) + output_bytes(decision);
    largest = std::max(largest, bytes);
    all += bytes;
  }
  return std::min(all, std::max(largest, bytes_in_flight));
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

class Pipeline {
 public:
  Pipeline(const TensorSource& source, const Plan& plan, const ConvertOptions& options, const RunHooks& hooks)
      : source_(source),
        plan_(plan),
        options_(options),
        hooks_(hooks),
        file_(fs::weakly_canonical(fs::absolute(options.output)), plan.output.file_bytes),
        buffers_(std::make_shared<BufferPool>(pool_bytes(plan, plan.memory.bytes_in_flight))),
        budget_(plan.memory.bytes_in_flight) {
    reports_.resize(plan.decisions.size());
    progress_.layers = plan.count(Action::quantize);
    progress_.bytes = plan.output.file_bytes;
  }

  ConvertReport run() {
    const auto start = std::chrono::steady_clock::now();
    file_.write(0, std::as_bytes(std::span(plan_.output.header)));
    progress_.bytes_done = plan_.output.header.size();
    {
      std::thread writer([this] { stage([this] { write_all(); }); });
      {
        SharedValues shared;  // the jobs of the pool use it until that has waited for them
        TaskPool tasks(options_.threads);
        resources_.emplace(RunResources{tasks, *buffers_, hooks_.cancel, plan_.calibration.get(), &shared, options_.memory.thresholds});
        stage([this] { read_all(); });
      }  // waits for the workers
      writes_.close();
      writer.join();
    }
    failure_.rethrow();
    ConvertReport report = make_report();
    require_quality(report);
    throw_if_cancelled();
    file_.publish(options_.sync);
    report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return report;
  }

 private:
  // Runs one stage; what it throws stops the others.
  template <class Function>
  void stage(Function function) {
    try {
      function();
    } catch (...) {
      failure_.set(std::current_exception());
    }
  }

  // What a layer holds until it is written.
  std::uint64_t kept_bytes(const Decision& decision) const {
    return output_bytes(decision) + (decision.bias ? output_bytes(plan_.decisions[*decision.bias]) : 0);
  }

  void throw_if_cancelled() const {
    if (hooks_.cancel != nullptr && *hooks_.cancel) throw Error(ErrorKind::cancelled, "interrupted");
  }

  // By number of the decision; in streaming mode off all that is worked on, else nothing.
  std::vector<at::Tensor> read_ahead() {
    std::vector<at::Tensor> values(plan_.decisions.size());
    if (plan_.memory.mode != StreamingMode::off) return values;
    for (std::size_t i = 0; i < values.size(); ++i) {
      throw_if_cancelled();
      if (is_worked_on(plan_.decisions[i])) values[i] = read_tensor(source_, plan_.decisions[i].source_index, *buffers_, resources_->tasks);
    }
    return values;
  }

  void read_all() {
    std::vector<at::Tensor> ahead = read_ahead();
    for (std::size_t i = 0; i < plan_.decisions.size() && !failure_.happened(); ++i) {
      throw_if_cancelled();
      const Decision& decision = plan_.decisions[i];
      if (decision.action == Action::remove || decision.action == Action::correct) continue;  // a bias goes with its layer
      if (i + 1 < plan_.decisions.size()) source_.prefetch(plan_.decisions[i + 1].source_index);
      const auto source_bytes = static_cast<std::uint64_t>(decision.source.bytes());
      if (decision.action == Action::copy) {
        if (std::optional<Extent> extent = source_.extent(decision.source_index)) {
          writes_.push({{}, std::move(extent), decision.source.name, 0, false});
          continue;
        }
        budget_.acquire(source_bytes);
        writes_.push({{{decision.source.name, read_bytes(source_, decision.source_index, *buffers_, resources_->tasks)}},
                      std::nullopt,
                      "",
                      source_bytes,
                      false});
        continue;
      }
      const std::uint64_t reserved = source_bytes + merge_bytes(plan_, decision) + kept_bytes(decision);
      budget_.acquire(reserved);
      at::Tensor values = ahead[i].defined() ? std::exchange(ahead[i], at::Tensor())
                                             : read_tensor(source_, decision.source_index, *buffers_, resources_->tasks);
      resources_->tasks.submit(
          [this, i, reserved, values = std::move(values)]() mutable { stage([&] { work(i, reserved, std::move(values)); }); });
    }
  }

  void work(std::size_t index, std::uint64_t reserved, at::Tensor values) {
    const Decision& decision = plan_.decisions[index];
    // After a failure the layers that are waiting are dropped, but what they hold of the budget must go back.
    if (failure_.happened()) return budget_.release(reserved);
    try {
      if (!decision.merges.empty()) values = merged(decision, std::move(values));
      WriteJob job;
      job.is_layer = decision.action == Action::quantize;
      job.tensors = job.is_layer ? quantize(index, values) : cast(decision, values);
      const std::uint64_t kept = kept_bytes(decision);
      values = at::Tensor();
      budget_.release(reserved - kept);
      job.reserved = kept;
      reserved = 0;
      writes_.push(std::move(job));
    } catch (...) {
      budget_.release(reserved);
      throw;
    }
  }

  at::Tensor merged(const Decision& decision, at::Tensor values) const {
    return plan_.merge->apply(decision.source_index, std::move(values), *buffers_, resources_->tasks);
  }

  std::vector<StoredTensor> quantize(std::size_t index, const at::Tensor& weight) {
    Decision decision = plan_.decisions[index];
    decision.source = as_quantized(decision);
    const Decision* bias = decision.bias ? &plan_.decisions[*decision.bias] : nullptr;
    at::Tensor bias_values;
    if (bias != nullptr) {
      bias_values = read_tensor(source_, bias->source_index, *buffers_, resources_->tasks);
      if (!bias->merges.empty()) bias_values = merged(*bias, std::move(bias_values));
    }
    LayerResult result = run_layer(decision, weight, plan_.seed, *resources_, bias_values);
    std::vector<StoredTensor> tensors = std::move(result.stored.tensors);
    if (bias != nullptr) {
      at::Tensor values = result.bias.defined() ? std::move(result.bias) : bias_values;
      if (bias->outputs.front().dtype == dtype_of(values))
        tensors.push_back({bias->source.name, std::move(values)});
      else
        tensors.push_back(cast(*bias, values).front());
    }
    LayerReport& report = reports_[index];  // of this layer alone
    report.quality = std::move(result.quality);
    report.quantizer = decision.quantizer->info().name;
    report.notes = std::move(result.notes);
    report.statistics = std::move(result.stored.statistics);
    report.seconds = result.seconds;
    return tensors;
  }

  std::vector<StoredTensor> cast(const Decision& decision, const at::Tensor& values) {
    const TensorInfo& output = decision.outputs.front();
    if (dtype_of(values) == output.dtype) return {{output.name, values}};
    if (output.dtype != DType::f32 && output.dtype != DType::f16 && output.dtype != DType::bf16)
      return {{output.name, cast_rarely(output, values)}};
    at::Tensor target = buffers_->allocate(output.shape, output.dtype);
    const CastResult result = cast_values(values, target, options_.clamp_overflow);
    if (result.overflowed != 0 && !options_.clamp_overflow)
      throw Error(ErrorKind::numeric,
                  fmt::format("{} of {} values are beyond the range of {}", result.overflowed, values.numel(), dtype_name(output.dtype)),
                  plan_.dequantizes ? "choose another --dtype" : "keep another type with --keep-dtype, or clamp with --fp16-overflow clamp")
          .in(fmt::format("tensor '{}'", output.name));
    return {{output.name, target}};
  }

  // Merged values back into a type that nothing else is cast to: F64 and the eight-bit ones.
  static at::Tensor cast_rarely(const TensorInfo& output, const at::Tensor& values) {
    at::Tensor target = values.to(scalar_type(output.dtype));
    const at::Tensor is_lost = at::isfinite(values).logical_and(at::isfinite(target.to(at::kFloat)).logical_not());
    const auto overflowed = is_lost.sum().item<std::int64_t>();
    if (overflowed == 0) return target;
    throw Error(ErrorKind::numeric,
                fmt::format("{} of {} values are beyond the range of {} once LoRAs are merged", overflowed, values.numel(),
                            dtype_name(output.dtype)),
                "cast what is kept with --keep-dtype, or merge with a smaller scale")
        .in(fmt::format("tensor '{}'", output.name));
  }

  void write_all() {
    while (std::optional<WriteJob> job = writes_.pop()) {
      // After a failure the rest is only taken off the channel, so that nobody waits for its budget.
      if (!failure_.happened()) stage([&] { write(*job); });
      job->tensors.clear();
      budget_.release(job->reserved);
    }
  }

  void write(const WriteJob& job) {
    throw_if_cancelled();
    for (const StoredTensor& tensor : job.tensors) {
      file_.write(plan_.output.tensors.at(tensor.name).offset, bytes_of(tensor.data));
      progress_.bytes_done += tensor.data.nbytes();
    }
    if (job.extent) {
      file_.copy(*job.extent, plan_.output.tensors.at(job.extent_name).offset);
      progress_.bytes_done += job.extent->bytes;
    }
    if (job.is_layer) ++progress_.layers_done;
    if (hooks_.progress) hooks_.progress(progress_);
  }

  ConvertReport make_report() {
    ConvertReport report;
    report.bytes_written = plan_.output.file_bytes;
    for (std::size_t i = 0; i < plan_.decisions.size(); ++i) {
      const Decision& decision = plan_.decisions[i];
      if (decision.action != Action::remove) report.bytes_read += static_cast<std::uint64_t>(decision.source.bytes());
      if (decision.action == Action::quantize) report.layers.push_back(std::move(reports_[i]));
    }
    return report;
  }

  void require_quality(const ConvertReport& report) const {
    if (!options_.fail_below) return;
    for (const LayerReport& layer : report.layers)
      if (const std::optional<double> ratio = signal_to_noise_db(layer.quality); ratio && !(*ratio >= *options_.fail_below))
        throw QualityError(fmt::format("layer '{}' has an SQNR of {:.2f} dB{}, --fail-below asks for {:.2f}: nothing was published",
                                       layer.quality.name, *ratio, layer.quality.output_error ? " in its outputs" : "",
                                       *options_.fail_below));
  }

  const TensorSource& source_;
  const Plan& plan_;
  const ConvertOptions& options_;
  const RunHooks& hooks_;
  OutputFile file_;
  std::shared_ptr<BufferPool> buffers_;
  ByteBudget budget_;
  std::optional<RunResources> resources_;
  Channel<WriteJob> writes_;
  Failure failure_;
  std::vector<LayerReport> reports_;  // by index of the plan's decisions
  Progress progress_;                 // the writer's
};

}  // namespace

void check_destination(const TensorSource& source, const ConvertOptions& options) {
  require_file_name(options.output);
  std::vector<fs::path> inputs = source.files();
  inputs.push_back(options.input);  // an index is none of the files that hold tensors
  inputs.insert(inputs.end(), {options.calibration.data, options.calibration.lora});
  inputs.insert(inputs.end(), options.merge.paths.begin(), options.merge.paths.end());
  require_replaceable(options.output, inputs, options.overwrite);
}

ConvertReport run_plan(const TensorSource& source, const Plan& plan, const ConvertOptions& options, const RunHooks& hooks) {
  check_destination(source, options);
  require_selection(plan);
  return Pipeline(source, plan, options, hooks).run();
}

}  // namespace qmill
