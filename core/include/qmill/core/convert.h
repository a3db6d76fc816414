// Runs a plan: reads each tensor once, writes the file, and reports on every layer.
#pragma once

#include <qmill/core/plan.h>
#include <qmill/core/quality.h>
#include <qmill/error.h>

#include <functional>

namespace qmill {

struct LayerReport {
  LayerQuality quality;
  std::string quantizer;
  std::vector<std::string> notes;
  std::map<std::string, double> statistics;
  double seconds = 0;  // from its first value to its last code, one or more threads
};

struct ConvertReport {
  std::vector<LayerReport> layers;  // in the order of the plan
  std::uint64_t bytes_read = 0;     // tensor data of the source
  std::uint64_t bytes_written = 0;  // the whole file
  double seconds = 0;
  std::vector<std::string> warnings;  // what only the data say
};

class Peers;

struct Progress {
  std::size_t layers_done = 0, layers = 0;
  std::uint64_t bytes_done = 0, bytes = 0;  // of the output
};

struct RunHooks {
  std::function<void(const Progress&)> progress;  // called from one thread at a time, after each tensor that is written
  const std::atomic<bool>* cancel = nullptr;      // once true, planning and the run end with Error(cancelled)
  Peers* peers = nullptr;                         // the processes that share this run: each calls run_plan() with the same plan
};

// A layer is below options.fail_below.
class QMILL_CORE_API QualityError final : public Error {
 public:
  explicit QualityError(std::string message);
  ~QualityError() override;
};

// Throws Error(usage) when the destination is an input, or exists and may not be overwritten. Of shards, only the index is known before the
// plan: run_plan() looks at all of them.
QMILL_CORE_API void check_destination(const TensorSource& source, const ConvertOptions& options);

// Publishes plan.options.output, or throws and leaves nothing there. Qualities are measured on the stored bytes. `source` is that of the
// plan. Throws QualityError before anything is published. With hooks.peers, rank 0 reports; the others return when it has published, with
// an empty report.
QMILL_CORE_API ConvertReport run_plan(const TensorSource& source, const Plan& plan, const RunHooks& hooks = {});

}  // namespace qmill
