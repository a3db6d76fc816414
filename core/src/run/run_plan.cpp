// Checks what a run needs before it begins, and says which part of the work is this process's.
#include <qmill/core/convert.h>

#include "io/destination.h"
#include "plan/input_files.h"
#include "plan/output_names.h"
#include "run/follower.h"
#include "run/leader.h"
#include "run/part.h"
#include "run/pipeline.h"

#include <qmill/error.h>

namespace qmill {
namespace {

namespace fs = std::filesystem;

void check_files(const TensorSource& source, const ConvertOptions& options, const std::vector<fs::path>& files, bool is_shared = false) {
  const bool replaces = options.run.overwrite || goes_on_publishing(options);
  const std::vector<fs::path> inputs = input_files(source, options);
  for (const fs::path& file : files) {
    require_file_name(file);
    require_replaceable(file, inputs, replaces);
  }
  check_part(options, files, is_shared);
}

void require_shareable(const Plan& plan) {
  if (plan.options.seed < 0)
    throw Error(ErrorKind::usage, "`manual_seed` -1 draws another seed in each process", "give a seed of 0 or more");
}

// What all ranks must agree on: where the output is, and the conversion.
std::string shared_identity(const Plan& plan) {
  return fs::absolute(plan.options.output).lexically_normal().string() + "\n" + conversion_identity(plan);
}

std::unique_ptr<Work> work_of(const Plan& plan, const RunHooks& hooks) {
  if (hooks.peers == nullptr) return std::make_unique<WholeWork>();
  if (hooks.peers->rank() == 0) return std::make_unique<Leader>(*hooks.peers, shared_identity(plan), hooks.cancel);
  return std::make_unique<Follower>(*hooks.peers, shared_identity(plan), hooks.cancel);
}

}  // namespace

QualityError::QualityError(std::string message)
    : Error(ErrorKind::numeric, std::move(message), "choose other settings, or keep the layer with `exclude_layers`") {}
QualityError::~QualityError() = default;

void check_destination(const TensorSource& source, const ConvertOptions& options) {
  // How many shards there will be is not known before the plan.
  check_files(source, options, {options.written.max_shard_bytes ? index_of(options.output) : options.output});
  require_safetensors_name(options.output);
  if (options.written.max_shard_bytes) require_shard_name(options.output);
}

ConvertReport run_plan(const TensorSource& source, const Plan& plan, const RunHooks& hooks) {
  RunHooks own = hooks;
  if (hooks.peers != nullptr && hooks.peers->count() == 1) own.peers = nullptr;
  Peers* peers = own.peers;
  try {
    check_destination(source, plan.options);
    check_files(source, plan.options, plan.output_files(), peers != nullptr);
    require_selection(plan);
    if (peers != nullptr) require_shareable(plan);
  } catch (const Error& error) {
    if (peers != nullptr) leave(*peers, error.what());
    throw;
  }
  const std::unique_ptr<Work> work = work_of(plan, own);
  try {
    ConvertReport report = run_pipeline(source, plan, own, *work);
    work->end(nullptr);
    return report;
  } catch (const Error& error) {
    work->end(&error);
    throw;
  } catch (const std::exception& error) {
    const Error told(ErrorKind::internal, error.what());
    work->end(&told);
    throw;
  }
}

}  // namespace qmill
