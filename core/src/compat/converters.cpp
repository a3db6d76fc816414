#include <qmill/compat/converters.h>

#include "calibration/memory_rows.h"
#include "calibration/substitute_hessian.h"
#include "plan/option_checks.h"
#include "plan/target.h"

#include <qmill/core/logging.h>
#include <qmill/core/quantize_weight.h>
#include <qmill/error.h>

#include <fmt/format.h>

namespace qmill {
namespace {

constexpr const char* kWeight = "weight";  // a layer without a name

Scaling scaling_named(const std::string& name) {
  const std::optional<Scaling> scaling = parse_scaling(name);
  if (!scaling) throw Error(ErrorKind::usage, fmt::format("scaling_mode is '{}'; allowed: row, tensor, block, axis", name));
  return *scaling;
}

void require_positive(const char* name, std::int64_t value) {
  if (value < 1) throw Error(ErrorKind::usage, fmt::format("{} is {}; allowed: an integer of at least 1", name, value));
}

// "cuda" is what these classes say by default: a GPU if there is one.
void note_device(const std::string& device, bool use_triton) {
  try {
    check_device(device);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::unsupported) throw;
    log(LogLevel::verbose, fmt::format("device '{}': this build computes on the CPU", device));
  }
  if (use_triton) log(LogLevel::normal, "use_triton is for GPUs: it changes nothing on a CPU");
}

}  // namespace

struct Int8Converter::State {
  const Host* host = nullptr;
  ConvertOptions options;       // of one layer: quantizer and its options, storage
  bool tiles_must_fit = false;  // block scaling: an error where the tile does not divide a side

  // Checks everything that does not depend on a weight.
  static std::shared_ptr<const State> make(const Host& host, ConvertOptions options, bool tiles_must_fit = false) {
    memory_policy(options.run.memory, 0, 0);
    TargetResolver(host, options.target).resolve({}, {kWeight, DType::f32, {256, 256}});
    return std::make_shared<const State>(State{&host, std::move(options), tiles_must_fit});
  }

  at::Tensor hessian(const at::Tensor& weight, const ConverterInputs& inputs, TaskPool& tasks) const {
    const std::int64_t columns = weight.size(1);
    if (!(inputs.smoothquant_alpha >= 0 && inputs.smoothquant_alpha <= 1))
      throw Error(ErrorKind::usage, fmt::format("smoothquant_alpha is {}; allowed: a number from 0 to 1", inputs.smoothquant_alpha));
    if (inputs.H.defined()) return given_inputs("H", inputs.H, {columns, columns});
    if (!inputs.activation_scales.defined()) return {};
    const at::Tensor largest = given_inputs("activation_scales", inputs.activation_scales, {columns});
    return diagonal_hessian(smoothing_factors(largest, largest_of_columns(weight, tasks), inputs.smoothquant_alpha));
  }
};

Int8Converter::~Int8Converter() = default;

ConvertedWeight Int8Converter::convert(const WeightTensor& given, const ConverterInputs& inputs) const {
  const ConvertOptions& options = state_->options;
  const at::Tensor weight = given_weight(given);
  const TensorInfo info = info_of({kWeight, weight});
  const ResolvedTarget resolved = TargetResolver(*state_->host, options.target).resolve({}, info);
  if (state_->tiles_must_fit && resolved.wanted_scaling == Scaling::block && resolved.target.layout.scaling != Scaling::block)
    throw Error(
        ErrorKind::usage,
        fmt::format("block_size {} does not divide the weight's {}", options.target.storage.block_size.value_or(0), info.shape_text()),
        "choose another block size, or scaling_mode row");

  TaskPool tasks(options.run.threads);
  const at::Tensor hessian = state_->hessian(weight, inputs, tasks);
  const std::unique_ptr<LayerCalibration> known = hessian.defined() ? memory_hessian(hessian) : nullptr;
  QuantizedWeight quantized = quantize_weight(*state_->host, options, kWeight, weight, known.get());
  for (const std::string& note : quantized.report.notes) log(LogLevel::verbose, note);
  return {quantized.tensors.at(0).data, quantized.tensors.at(1).data, quantized.dequantized};
}

QuIPInt8Converter::QuIPInt8Converter(const QuIPInt8ConverterOptions& given, const Host& host)
    : Int8Converter([&] {
        require_positive("block_size", given.block_size);
        note_device(given.device, given.use_triton);
        ConvertOptions options;
        options.target.quantizer = "quip";
        // Without lazy updates the blocks of columns are one: no update waits for the end of a block.
        options.target.quantizer_options["quip"] = {{"block_size", given.lazy_updates ? given.block_size : std::int64_t{1}},
                                                    {"actorder", given.actorder},
                                                    {"hadamard", given.use_hadamard},
                                                    {"seed", given.seed.value_or(-1)},
                                                    {"store_transformed", given.store_transformed},
                                                    {"requant_scheme", given.requant_scheme},
                                                    {"requant_tensor_per_row", given.requant_tensor_use_per_row_scale},
                                                    {"checkpointed", given.use_checkpointed_ldlq},
                                                    {"checkpoint_threshold", given.checkpointed_ldlq_threshold},
                                                    {"checkpoint_segments", given.checkpoint_segments}};
        options.target.storage.block_size = given.block_size;
        if (!given.store_transformed) options.target.storage.rotation.mode = Rotation::Mode::off;
        options.run.memory.mode = parse_streaming_mode(given.streaming_mode);
        options.run.memory.thresholds = streaming_thresholds(given.streaming_thresholds);
        options.run.memory.no_limits = given.no_memory_limits;
        return State::make(host, std::move(options));
      }()) {}

LearnedRoundingConverter::LearnedRoundingConverter(const LearnedRoundingConverterOptions& given, const Host& host)
    : Int8Converter([&] {
        require_positive("block_size", given.block_size);
        if (given.optimizer != "original" && given.optimizer != "adamw" && given.optimizer != "radam")
          throw Error(ErrorKind::usage, fmt::format("optimizer is '{}'; allowed: original, adamw, radam", given.optimizer));
        ConvertOptions options;
        options.target.quantizer = given.optimizer;
        const std::string& name = host.quantizer(given.optimizer).info().name;
        std::map<std::string, OptionValue>& values = options.target.quantizer_options[name];
        values = given.options;
        values.insert({{"num_iter", given.num_iter},
                       {"lr", given.lr},
                       {"lr_schedule", given.lr_schedule},
                       {"top_p", given.top_p},
                       {"min_k", given.min_k},
                       {"max_k", given.max_k}});
        options.target.storage.scaling = scaling_named(given.scaling_mode);
        options.target.storage.block_size = given.block_size;
        options.target.storage.rotation.mode = Rotation::Mode::off;
        return State::make(host, std::move(options), true);
      }()) {}

GPTQInt8Converter::GPTQInt8Converter(const GPTQInt8ConverterOptions& given, const Host& host)
    : Int8Converter([&] {
        require_positive("block_size", given.block_size);
        note_device(given.device, given.use_triton);
        ConvertOptions options;
        options.target.quantizer = "gptq";
        options.target.quantizer_options["gptq"] = {
            {"block_size", given.block_size}, {"actorder", given.actorder}, {"fast", given.lazy_updates}};
        options.target.storage.scaling = scaling_named(given.scaling_mode);
        options.target.storage.rotation.mode = Rotation::Mode::off;
        return State::make(host, std::move(options));
      }()) {}

}  // namespace qmill
