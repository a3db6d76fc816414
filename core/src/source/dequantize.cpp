#include <qmill/core/dequantize.h>

#include "../plan/default_names.h"
#include "../plan/output_metadata.h"
#include "../publish/output_plan.h"

#include <qmill/core/decoded_source.h>
#include <qmill/core/process.h>

#include <fmt/format.h>

#include <set>

namespace qmill {
namespace {

ConvertOptions run_options(const DequantizeOptions& options) {
  ConvertOptions run;
  run.input = options.input;
  run.output = options.output;
  run.overwrite = options.overwrite;
  run.threads = options.threads;
  run.memory = options.memory;
  run.sync = options.sync;
  return run;
}

Plan make_plan(const TensorSource& source, const DequantizeOptions& options) {
  std::set<std::string> layers;
  for (const StoredLayerEntry& layer : decoded_layers(source)) layers.insert(layer.info.weight.name);
  Plan plan;
  plan.dequantizes = true;
  std::uint64_t bytes = 0;
  std::vector<TensorInfo> outputs;
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    Decision decision;
    decision.source = source.tensors()[i];
    decision.source_index = i;
    decision.outputs = {decision.source};
    decision.is_layer = layers.contains(decision.source.name);
    if (decision.is_layer && decision.source.dtype != options.dtype) {
      decision.action = Action::cast;
      decision.outputs.front().dtype = options.dtype;
    }
    bytes += static_cast<std::uint64_t>(decision.source.bytes());
    outputs.push_back(decision.outputs.front());
    plan.decisions.push_back(std::move(decision));
  }
  plan.memory = memory_policy(options.memory, bytes, free_memory_bytes());
  plan.output = plan_output(std::move(outputs), dequantized_metadata(source, options.input, options.dtype));
  return plan;
}

void require_known_type(DType dtype) {
  if (dtype != DType::bf16 && dtype != DType::f16 && dtype != DType::f32)
    throw Error(ErrorKind::usage, fmt::format("--dtype is {}; allowed: bf16, f16, f32", dtype_name(dtype)));
}

}  // namespace

DequantizeReport dequantize(const Host& host, const DequantizeOptions& options, const RunHooks& hooks) {
  require_known_type(options.dtype);
  const ConvertOptions run = run_options(options);
  ConvertOptions opened = run;
  opened.dequantize_source = true;
  const std::unique_ptr<TensorSource> source = open_source(host, opened);
  check_destination(*source, run);
  try {
    if (decoded_layers(*source).empty())
      throw Error(ErrorKind::input, "no layer of it is quantized", "there is nothing to decode; qmill inspect shows what it holds");
    const Plan plan = make_plan(*source, options);
    return {decoded_layers(*source), run_plan(*source, plan, run, hooks)};
  } catch (Error& error) {
    const bool is_of_the_source = error.kind() != ErrorKind::usage && error.kind() != ErrorKind::cancelled && error.kind() != ErrorKind::io;
    if (is_of_the_source) error.in(fmt::format("'{}'", options.input.string()));
    throw error;
  }
}

std::filesystem::path default_dequantized(const DequantizeOptions& options) {
  std::string dtype(dtype_name(options.dtype));
  for (char& c : dtype)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return output_beside(options.input, dtype);
}

}  // namespace qmill
