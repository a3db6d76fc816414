// Single weights.
#include "call.h"
#include "options.h"
#include "tensors.h"

#include <qmill/core/json.h>
#include <qmill/core/quantize_weight.h>
#include <qmill/error.h>

namespace qmill::python {
namespace {

ConvertOptions weight_options(const Call& call) {
  const OptionTable table(call.host());
  std::vector<GivenOption> given = given_options(call.request, table);
  for (const GivenOption& option : given) {
    const OptionRow& row = *table.find(option.name);
    if (!row.is_of_weights())
      throw Error(ErrorKind::usage, "`" + row.spec.name + "` is an option of whole models", "leave it out, or use convert()");
  }
  return table.read(given);
}

// Tensors: the weight, then what "inputs" names: nothing, "hessian" or "rows".
Answer quantize(const Call& call) {
  WeightInputs inputs;
  const std::string kind = call.text("inputs", "");
  if (kind == "hessian") inputs.hessian = call.tensor(1);
  if (kind == "rows") inputs.rows = call.tensor(1);
  const QuantizedWeight made =
      quantize_weight(call.host(), weight_options(call), call.text("name"), call.tensor(0), inputs, call.hooks.cancel);
  Outputs outputs;
  for (const StoredTensor& tensor : made.tensors) outputs.add(tensor.name, tensor.data);
  outputs.add("dequantized", made.dequantized);
  return outputs.answer(Json::parse(layer_report_json(made.report)));
}

}  // namespace

void add_tensor_calls(Functions& functions) { functions["quantize"] = quantize; }

}  // namespace qmill::python
