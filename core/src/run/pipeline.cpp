#include "run/pipeline.h"

#include "calibration/calibration.h"
#include "engine/channel.h"
#include "engine/shared_values.h"
#include "lora/merged_values.h"
#include "model/finite_values.h"
#include "plan/input_files.h"
#include "run/cast_tensor.h"
#include "run/part.h"
#include "run/run_layer.h"

#include <qmill/core/logging.h>
#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <thread>
#include <utility>

namespace qmill {
namespace {

// What the writer does next: write tensors, or copy one from file to file. `reserved` goes back to the budget after it.
struct WriteJob {
  std::size_t decision = 0;  // that is finished with it
  std::vector<StoredTensor> tensors;
  std::optional<Extent> extent;  // of the decision's source
  std::uint64_t reserved = 0;
  std::string warning;  // of a tensor that is copied
};

std::uint64_t output_bytes(const Decision& decision) {
  std::uint64_t bytes = 0;
  for (const TensorInfo& output : decision.outputs) bytes += static_cast<std::uint64_t>(output.bytes());
  return bytes;
}

// Enough for what the budget lets through: a layer larger than the budget goes alone.
std::uint64_t pool_bytes(const Plan& plan, const ValueSource& values) {
  std::uint64_t largest = 0;
  std::uint64_t all = 0;
  for (const Decision& decision : plan.decisions) {
    if (!is_worked_on(decision)) continue;
    const std::uint64_t bytes = values.reading_bytes(decision.source_index) + output_bytes(decision);
    largest = std::max(largest, bytes);
    all += bytes;
  }
  return std::min(all, std::max(largest, plan.memory.bytes_in_flight));
}

// One more than can be worked on at once: what comes next is read meanwhile.
std::uint64_t waiting_layers(int threads) {
  return 1 + (threads > 0 ? static_cast<std::uint64_t>(threads) : std::max(1u, std::thread::hardware_concurrency()));
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

// No function of WorkStart is called after its end.
class Stopped {
 public:
  explicit Stopped(Work& work) : work_(work) {}
  ~Stopped() { work_.stop(); }
  Stopped(const Stopped&) = delete;
  Stopped& operator=(const Stopped&) = delete;

 private:
  Work& work_;
};

class Pipeline {
 public:
  Pipeline(const TensorSource& source, const Plan& plan, const RunHooks& hooks, Work& work)
      : source_(source),
        plan_(plan),
        options_(plan.options),
        hooks_(hooks),
        work_(work),
        values_(values_of(source, plan.merge)),
        part_(plan, is_shared(), follows()),
        buffers_(std::make_shared<BufferPool>(pool_bytes(plan, *values_))),
        budget_(plan.memory.bytes_in_flight),
        waiting_(waiting_layers(plan.options.run.threads)) {
    reports_.resize(plan.decisions.size());
    progress_.layers = plan.count(Action::quantize);
    progress_.bytes = plan.output.bytes();
  }

  ConvertReport run() {
    const Stopped after(work_);  // before anything here is gone
    try {
      return run_all();
    } catch (const std::bad_alloc&) {
      work_.stop();
      throw part_.leave(Error(ErrorKind::io, "out of memory", "use fewer `threads`, or a machine with more memory"));
    } catch (const QualityError&) {
      throw;
    } catch (const Error& error) {
      work_.stop();
      throw part_.leave(error);
    }
  }

 private:
  ConvertReport run_all() {
    const auto start = std::chrono::steady_clock::now();
    begin();
    {
      SharedValues shared;  // the jobs of the pool use it until that has waited for them
      std::optional<TaskPool> tasks(std::in_place, options_.run.threads);
      resources_.emplace(RunResources{*tasks, *buffers_, is_shared() ? &stopping_ : hooks_.cancel, &shared, options_.run.memory.thresholds});
      std::thread writer([this] { stage([this] { write_all(); }); });
      stage([this] { read_all(); });
      tasks.reset();  // waits for the workers
      writes_.close();
      writer.join();
    }
    failure_.rethrow();
    if (follows()) require_unchanged(plan_.inputs);
    work_.complete();
    if (follows()) return {};
    require_finished();
    ConvertReport report = make_report();
    require_quality(report);
    throw_if_cancelled();
    require_unchanged(plan_.inputs);
    part_.publish();
    report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return report;
  }

  bool is_shared() const { return hooks_.peers != nullptr; }
  bool follows() const { return is_shared() && hooks_.peers->rank() != 0; }

  void begin() {
    if (!follows()) {
      find_finished();
      part_.write_headers();
      for (const PlannedFile& file : plan_.output.files) progress_.bytes_done += file.header.size();
    }
    work_.begin({follows() ? std::vector<WorkUnit>() : units(), [this](const FinishedDecision& finished) { note(finished); },
                 [this] { part_.sync(); }, [this](std::exception_ptr failure) { fail(std::move(failure)); }});
  }

  // A layer costs what its quantizer does with it: with real inputs, that grows with the square of its columns. Layers with the same inputs
  // share what is made of these.
  std::vector<WorkUnit> units() {
    std::vector<WorkUnit> units;
    std::optional<TaskPool> tasks;
    if (is_shared()) tasks.emplace(options_.run.threads);
    std::map<std::string, std::size_t> unit_of;  // by identity of the inputs
    for (std::size_t i = 0; i < plan_.decisions.size(); ++i) {
      const Decision& decision = plan_.decisions[i];
      // A bias goes with its layer.
      if (finished_[i] || decision.action == Action::remove || decision.action == Action::correct) continue;
      const std::string inputs = tasks ? inputs_of(decision, *tasks) : "";
      const auto elements = static_cast<double>(decision.source.elements());
      const double cost = inputs.empty() ? elements : elements * static_cast<double>(decision.source.shape.back());
      const auto known = unit_of.find(inputs);
      if (inputs.empty() || known == unit_of.end()) {
        unit_of[inputs] = units.size();
        units.push_back({{i}, cost});
      } else {
        units[known->second].decisions.push_back(i);
        units[known->second].cost += cost;
      }
    }
    return units;
  }

  // Empty: nothing is known of them.
  std::string inputs_of(const Decision& decision, TaskPool& tasks) {
    if (decision.action != Action::quantize || !plan_.calibration) return "";
    const std::unique_ptr<LayerCalibration> inputs =
        plan_.calibration->for_layer(decision.values, RunResources{tasks, *buffers_, hooks_.cancel});
    return inputs == nullptr ? "" : inputs->identity();
  }

  // What an earlier run has finished is not done again.
  void find_finished() {
    finished_ = part_.finished();
    finished_.resize(plan_.decisions.size());
    for (std::size_t i = 0; i < finished_.size(); ++i) {
      if (!finished_[i]) continue;
      const Decision& decision = plan_.decisions[i];
      progress_.bytes_done += kept_bytes(decision);
      if (std::optional<LayerReport> report = part_.report_of(decision)) {
        reports_[i] = std::move(*report);
        ++progress_.layers_done;
      }
    }
    if (part_.goes_on())
      log(LogLevel::normal,
          fmt::format("resumed: {} of {} tensors to work on are finished", std::count(finished_.begin(), finished_.end(), true),
                      std::count_if(plan_.decisions.begin(), plan_.decisions.end(), is_worked_on)));
  }

  // Runs one stage; what it throws stops the others.
  template <class Function>
  void stage(Function function) {
    try {
      function();
    } catch (...) {
      fail(std::current_exception());
    }
  }

  void fail(std::exception_ptr failure) {
    failure_.set(std::move(failure));
    stopping_ = true;
  }

  void throw_if_cancelled() const {
    if (hooks_.cancel != nullptr && *hooks_.cancel) throw Error(ErrorKind::cancelled, "interrupted");
  }

  // What a layer holds until it is written.
  std::uint64_t kept_bytes(const Decision& decision) const {
    return output_bytes(decision) + (decision.bias ? output_bytes(plan_.decisions[*decision.bias]) : 0);
  }

  // --- the reader ---

  at::Tensor read(const Decision& decision) const { return values_->read(decision.source_index, *buffers_, resources_->tasks); }

  // By number of the decision; in streaming mode off all that is worked on, else nothing.
  std::vector<at::Tensor> read_ahead() {
    std::vector<at::Tensor> values(plan_.decisions.size());
    if (plan_.memory.mode != StreamingMode::off || is_shared()) return values;
    for (std::size_t i = 0; i < values.size(); ++i) {
      throw_if_cancelled();
      if (is_worked_on(plan_.decisions[i]) && !finished_[i]) values[i] = read(plan_.decisions[i]);
    }
    return values;
  }

  void read_all() {
    std::vector<at::Tensor> ahead = read_ahead();
    for (std::vector<std::size_t> given = work_.next(); !given.empty(); given = work_.next())
      for (std::size_t k = 0; k < given.size(); ++k) {
        if (failure_.happened()) return;
        throw_if_cancelled();
        require_planned(given[k]);
        if (k + 1 < given.size()) source_.prefetch(plan_.decisions[given[k + 1]].source_index);
        if (plan_.decisions[given[k]].action == Action::copy)
          copy(given[k]);
        else
          submit(given[k], std::move(ahead[given[k]]));
      }
  }

  // From file to file where the source has the bytes in one.
  void copy(std::size_t index) {
    const Decision& decision = plan_.decisions[index];
    if (std::optional<Extent> extent = source_.extent(decision.source_index)) {
      writes_.push({index, {}, std::move(extent), 0, not_finite_warning(decision, count_in_file(decision))});
      return;
    }
    const auto bytes = static_cast<std::uint64_t>(decision.source.bytes());
    budget_.acquire(bytes);
    at::Tensor values = read_bytes(source_, decision.source_index, *buffers_, resources_->tasks);
    const std::int64_t count = count_not_finite(bytes_of(values), decision.source.dtype);
    writes_.push({index, {{decision.source.name, std::move(values)}}, std::nullopt, bytes, not_finite_warning(decision, count)});
  }

  // The copy is made by the system, so nobody else sees these values.
  std::int64_t count_in_file(const Decision& decision) {
    constexpr std::uint64_t kPart = 1 << 20;
    const TensorInfo& tensor = decision.source;
    if (!is_floating(tensor.dtype)) return 0;
    const auto bytes = static_cast<std::uint64_t>(tensor.bytes());
    std::atomic<std::int64_t> count = 0;
    resources_->tasks.parallel(static_cast<std::int64_t>((bytes + kPart - 1) / kPart), [&](std::int64_t part) {
      thread_local std::vector<std::byte> buffer;
      const std::uint64_t begin = static_cast<std::uint64_t>(part) * kPart;
      buffer.resize(static_cast<std::size_t>(std::min(kPart, bytes - begin)));
      source_.read_part(decision.source_index, begin, buffer);
      count += count_not_finite(buffer, tensor.dtype);
    });
    return count;
  }

  static std::string not_finite_warning(const Decision& decision, std::int64_t count) {
    if (count == 0) return "";
    return fmt::format("{} of the {} values of '{}' are NaN or infinite: it is copied as it is", count, decision.source.elements(),
                       decision.source.name);
  }

  // `weight`: defined if it was read ahead.
  void submit(std::size_t index, at::Tensor weight) {
    const Decision& decision = plan_.decisions[index];
    const std::uint64_t reserved = values_->reading_bytes(decision.source_index) + kept_bytes(decision);
    if (is_shared()) waiting_.acquire(1);
    budget_.acquire(reserved);
    LayerValues values{weight.defined() ? std::move(weight) : read(decision), {}};
    if (decision.bias) values.bias = read(plan_.decisions[*decision.bias]);
    resources_->tasks.submit(
        [this, index, reserved, values = std::move(values)]() mutable {
          stage([&] { work(index, reserved, std::move(values)); });
          if (is_shared()) waiting_.release(1);
        });
  }

  // --- a worker ---

  void work(std::size_t index, std::uint64_t reserved, LayerValues values) {
    const Decision& decision = plan_.decisions[index];
    // After a failure the layers that are waiting are dropped, but what they hold of the budget must go back.
    if (failure_.happened()) return budget_.release(reserved);
    try {
      WriteJob job;
      job.decision = index;
      if (decision.action == Action::quantize) {
        FinishedLayer finished = run_layer(plan_, decision, values, *resources_);
        job.tensors = std::move(finished.tensors);
        reports_[index] = std::move(finished.report);  // of this layer alone
      } else {
        job.tensors = {cast_tensor(decision, values.weight, options_, *buffers_)};
      }
      job.reserved = kept_bytes(decision);
      values = {};
      budget_.release(reserved - job.reserved);
      reserved = 0;
      writes_.push(std::move(job));
    } catch (...) {
      budget_.release(reserved);
      throw;
    }
  }

  // --- the writer ---

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
    const Decision& decision = plan_.decisions[job.decision];
    for (const StoredTensor& tensor : job.tensors) part_.write(tensor.name, bytes_of(tensor.data));
    if (job.extent) part_.copy(decision.source.name, *job.extent);
    FinishedDecision finished{job.decision, {}, job.warning};
    if (part_.is_resumable() || is_shared()) finished.entry.hashes = hashes_of(job.tensors);
    if (decision.action == Action::quantize) finished.entry.report = std::move(reports_[job.decision]);
    work_.finished(std::move(finished));
  }

  // By this process or another. [one thread at a time]
  void note(const FinishedDecision& finished) {
    require_planned(finished.decision);
    if (finished_[finished.decision]) return;
    const Decision& decision = plan_.decisions[finished.decision];
    finished_[finished.decision] = true;
    progress_.bytes_done += kept_bytes(decision);
    if (is_worked_on(decision)) part_.note(decision, finished.entry);
    if (!finished.warning.empty()) warnings_[finished.decision] = finished.warning;
    if (finished.entry.report) {
      reports_[finished.decision] = *finished.entry.report;
      ++progress_.layers_done;
    }
    if (hooks_.progress) hooks_.progress(progress_);
  }

  // Numbers of decisions come from other processes, too.
  void require_planned(std::size_t decision) const {
    if (decision >= plan_.decisions.size())
      throw Error(ErrorKind::io, fmt::format("another rank speaks of tensor number {}, of {}", decision, plan_.decisions.size()));
  }

  // --- the end ---

  void require_finished() const {
    for (std::size_t i = 0; i < finished_.size(); ++i) {
      const Decision& decision = plan_.decisions[i];
      if (!finished_[i] && decision.action != Action::remove && decision.action != Action::correct)
        throw Error(ErrorKind::internal, "no process has worked on it").in(fmt::format("tensor '{}'", decision.source.name));
    }
  }

  ConvertReport make_report() {
    ConvertReport report;
    for (const auto& [decision, warning] : warnings_) report.warnings.push_back(warning);
    report.bytes_written = plan_.output.bytes();
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
        throw QualityError(fmt::format("layer '{}' has an SQNR of {:.2f} dB{}, `fail_below` asks for {:.2f}: nothing was published",
                                       layer.quality.name, *ratio, layer.quality.output_error ? " in its outputs" : "",
                                       *options_.fail_below));
  }

  const TensorSource& source_;
  const Plan& plan_;
  const ConvertOptions& options_;
  const RunHooks& hooks_;
  Work& work_;
  const std::unique_ptr<ValueSource> values_;
  Part part_;
  std::vector<bool> finished_;  // by index of the plan's decisions
  std::shared_ptr<BufferPool> buffers_;
  ByteBudget budget_;
  ByteBudget waiting_;  // layers that this process has taken: the others get what it cannot begin
  std::optional<RunResources> resources_;
  Channel<WriteJob> writes_;
  Failure failure_;
  std::atomic<bool> stopping_ = false;  // a failure happened, here or in another process
  std::vector<LayerReport> reports_;            // by index of the plan's decisions
  Progress progress_;                           // of all processes
  std::map<std::size_t, std::string> warnings_;  // by index of the plan's decisions
};

}  // namespace

ConvertReport run_pipeline(const TensorSource& source, const Plan& plan, const RunHooks& hooks, Work& work) {
  return Pipeline(source, plan, hooks, work).run();
}

}  // namespace qmill
