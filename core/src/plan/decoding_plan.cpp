#include "plan/decoding_plan.h"

#include "model/value_source.h"
#include "plan/input_files.h"
#include "plan/output_metadata.h"

#include <qmill/core/decoded_source.h>
#include <qmill/core/process.h>
#include <qmill/error.h>
#include <qmill/source_details.h>

#include <fmt/format.h>

#include <set>

namespace qmill {

Plan make_decoding_plan(const TensorSource& source, const ConvertOptions& options) {
  const DType dtype = *options.decode_to;
  if (dtype != DType::bf16 && dtype != DType::f16 && dtype != DType::f32)
    throw Error(ErrorKind::usage, fmt::format("`dtype` is {}; allowed: bf16, f16, f32", dtype_name(dtype)));
  std::set<std::string> layers;
  for (const StoredLayerEntry& layer : decoded_layers(source)) layers.insert(layer.info.weight.name);
  if (layers.empty())
    throw Error(ErrorKind::input, "no layer of it is quantized", "there is nothing to decode; qmill inspect shows what it holds")
        .in(fmt::format("'{}'", options.input.string()));
  Plan plan;
  plan.options = options;
  std::vector<TensorInfo> outputs;
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    Decision decision;
    decision.source = decision.values = source.tensors()[i];
    decision.source_index = i;
    decision.outputs = {decision.source};
    decision.is_layer = layers.contains(decision.source.name);
    // What a loader decodes is not copied unseen: a cast, if only to its own type, looks for values that are not finite.
    if (decision.is_layer && (decision.source.dtype != dtype || !stored_type(source, i).empty())) {
      decision.action = Action::cast;
      decision.outputs.front().dtype = dtype;
    }
    outputs.push_back(decision.outputs.front());
    plan.decisions.push_back(std::move(decision));
  }
  plan.inputs_identity = identity_of_inputs(source, options);
  plan.memory = memory_policy(options.run.memory, bytes_of(source), free_memory_bytes());
  plan.output = plan_output(std::move(outputs), dequantized_metadata(source, options.input, dtype));
  return plan;
}

}  // namespace qmill
