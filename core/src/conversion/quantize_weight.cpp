#include <qmill/core/quantize_weight.h>

#include "calibration/memory_rows.h"
#include "host/guard.h"
#include "plan/automatic.h"
#include "plan/option_checks.h"
#include "plan/target.h"
#include "run/choose_codes.h"
#include "run/measure_layer.h"

#include <qmill/error.h>
#include <qmill/names.h>

#include <ATen/ops/empty.h>
#include <fmt/format.h>

namespace qmill {
namespace {

// With inputs, `auto` is the cheapest quantizer that uses them, as in a conversion.
TargetOptions decided(const Host& host, TargetOptions target, bool has_inputs) {
  if (!has_inputs || !same_name(target.quantizer, "auto")) return target;
  const WritableFormat& format = host.format(target.format);
  for (const Quantizer* quantizer : calibrated_quantizers(host)) {
    if (!writes(*quantizer, format)) continue;
    target.quantizer = quantizer->info().name;
    break;
  }
  return target;
}

// What a weight is quantized with, apart from the run's own options.
struct OwnResources {
  OwnResources(const ConvertOptions& options, const std::atomic<bool>* cancel)
      : tasks(options.run.threads), resources{tasks, *buffers, cancel, nullptr, options.run.memory.thresholds} {}
  TaskPool tasks;
  const std::shared_ptr<BufferPool> buffers = std::make_shared<BufferPool>(0);
  const RunResources resources;
};

QuantizedWeight quantize(const Host& host, const ConvertOptions& options, const std::string& name, const at::Tensor& weight,
                         const LayerCalibration* inputs, const RunResources& resources) {
  check_device(options.run.device);
  Decision decision;
  decision.source = decision.values = info_of({name, weight});
  decision.action = Action::quantize;
  const TargetOptions wanted = decided(host, options.target, inputs != nullptr);
  const ResolvedTarget resolved = TargetResolver(host, wanted).resolve({}, decision.source);
  decision.quantizer = resolved.quantizer;
  decision.target = resolved.target;
  const auto& [format, layout, values] = decision.target;
  decision.label = format->label(layout);
  guard(decision.quantizer->info().name, "plan", name,
        [&] { decision.outputs = decision.quantizer->plan(decision.source, decision.target); });

  ChosenLayer chosen = choose_codes(decision, weight, inputs, options.seed, resources);
  MeasuredLayer measured = measure_layer(decision, weight, chosen.stored.tensors, inputs, false, resources);
  QuantizedWeight result;
  result.dequantized = at::empty(weight.sizes(), at::kFloat);
  std::vector<at::Tensor> tensors;
  for (const StoredTensor& tensor : chosen.stored.tensors) tensors.push_back(tensor.data);
  guard(format->info().name, "decode", name,
        [&] { format->decode_rows(tensors, layout, 0, weight.size(0), result.dequantized.mutable_data_ptr<float>()); });
  result.report = {std::move(measured.quality), decision.quantizer->info().name, std::move(chosen.notes),
                   std::move(chosen.stored.statistics), chosen.seconds};
  if (!layout.note.empty()) result.report.notes.push_back(layout.note);
  result.tensors = std::move(chosen.stored.tensors);
  return result;
}

}  // namespace

QuantizedWeight quantize_weight(const Host& host, const ConvertOptions& options, const std::string& name, const at::Tensor& given,
                                const WeightInputs& inputs, const std::atomic<bool>* cancel) {
  const at::Tensor weight = given_weight(given);
  if (inputs.hessian.defined() && inputs.rows.defined())
    throw Error(ErrorKind::usage, "a Hessian and rows are given, and the rows say more", "give one of them");
  const OwnResources own(options, cancel);
  std::unique_ptr<LayerCalibration> known;
  const std::int64_t columns = weight.size(1);
  if (inputs.hessian.defined()) known = memory_hessian(given_inputs("hessian", inputs.hessian, {columns, columns}));
  if (inputs.rows.defined()) {
    const at::Tensor& rows = inputs.rows;
    const bool has_columns = rows.dim() > 1 && rows.size(-1) == columns;
    known = memory_rows(given_inputs("rows", has_columns ? rows.reshape({-1, columns}) : rows, {-1, columns}), options.seed, own.resources);
  }
  return quantize(host, options, name, weight, known.get(), own.resources);
}

QuantizedWeight quantize_weight(const Host& host, const ConvertOptions& options, const std::string& name, const at::Tensor& given,
                                const LayerCalibration* inputs, const std::atomic<bool>* cancel) {
  const at::Tensor weight = given_weight(given);
  const OwnResources own(options, cancel);
  return quantize(host, options, name, weight, inputs, own.resources);
}

}  // namespace qmill
