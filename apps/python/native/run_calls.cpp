// Conversions and plans.
#include "call.h"
#include "options.h"

#include <qmill/core/conversion.h>
#include <qmill/core/json.h>
#include <qmill/error.h>

namespace qmill::python {
namespace {

ConvertOptions file_options(const Call& call) {
  const OptionTable table(call.host(), layer_config_of(call.request));
  std::vector<GivenOption> given = given_options(call.request, table);
  table.add_automatic_filter(given);
  ConvertOptions options = table.read(given);
  if (options.output.empty()) options.output = default_output(call.host(), options);
  return options;
}

Answer convert(const Call& call) {
  Conversion conversion(call.host(), file_options(call));
  conversion.check_destination();  // before a heuristic reads everything
  const Plan& plan = conversion.plan(call.hooks.cancel);
  conversion.require_selection();
  const ConvertReport report = conversion.run(call.hooks);
  return {report_json(plan, report)};
}

Answer plan(const Call& call) {
  Conversion conversion(call.host(), file_options(call));
  const Plan& made = conversion.plan(call.hooks.cancel);
  conversion.require_selection();
  return {made.json()};
}

Answer options(const Call& call) { return {options_json(OptionTable(call.host()))}; }

Answer dequantize_file(const Call& call) {
  DequantizeOptions options;
  options.input = call.text("input");
  options.output = call.text("output", "");
  const std::string dtype = call.text("dtype");
  if (dtype != "bf16" && dtype != "f16" && dtype != "f32")
    throw Error(ErrorKind::usage, "dtype is '" + dtype + "'; allowed: bf16, f16, f32");
  options.dtype = dtype == "bf16" ? DType::bf16 : dtype == "f16" ? DType::f16 : DType::f32;
  options.run.overwrite = call.flag("overwrite", false);
  options.run.threads = thread_count(call);
  options.run.sync = call.flag("sync", true);
  if (options.output.empty()) options.output = default_dequantized(options);
  return {dequantize_json(options, dequantize(call.host(), options, call.hooks))};
}

}  // namespace

void add_run_calls(Functions& functions) {
  functions["convert"] = convert;
  functions["plan"] = plan;
  functions["options"] = options;
  functions["dequantize"] = dequantize_file;
}

}  // namespace qmill::python
