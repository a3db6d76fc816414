// Quantizes single weights, without files, under the names that users of Python tools know.
#pragma once

#include <qmill/core/export.h>
#include <qmill/compat/constants.h>
#include <qmill/core/memory.h>
#include <qmill/options.h>

#include <memory>
#include <optional>

namespace qmill {

// auto [q, scale, dequantized] = converter.convert(weight);
struct ConvertedWeight {
  at::Tensor q;            // I8 [N,K]
  ScaleTensor scale;       // F32
  at::Tensor dequantized;  // F32 [N,K]: what a reader computes from q and scale, exactly
};

// What is known of the inputs of a weight [N,K]; undefined tensors are not known.
struct ConverterInputs {
  HessianMatrix H = {};               // without it, and without activation_scales, the identity
  at::Tensor activation_scales = {};  // [K], largest magnitudes per column: SmoothQuant's factors weight the columns, where H is not given
  double smoothquant_alpha = 0.5;     // 0 to 1
};

struct QuIPInt8ConverterOptions {
  std::int64_t block_size = 128;  // columns in a block of the algorithm: speed only; with requant_scheme block the edge of a tile
  std::string device = "cuda";    // auto, cpu, cuda[:N]; cuda means a GPU if there is one, and this build computes on the CPU
  bool actorder = true;
  bool use_hadamard = true;
  std::optional<std::int64_t> seed = std::nullopt;
  bool use_triton = false;   // for GPUs: logged
  bool lazy_updates = true;  // off: one column after the other, for the same codes
  bool store_transformed = false;
  std::string requant_scheme = "tensor";  // or "block"
  bool requant_tensor_use_per_row_scale = true;
  std::string streaming_mode = "balanced";
  std::map<std::string, std::optional<std::int64_t>> streaming_thresholds = {};
  bool no_memory_limits = false;
  bool use_checkpointed_ldlq = false;
  std::int64_t checkpointed_ldlq_threshold = 8192;
  std::int64_t checkpoint_segments = 4;
};

struct LearnedRoundingConverterOptions {
  std::int64_t block_size = 128;  // edge of a tile with its own scale; it must divide both sides
  std::int64_t num_iter = 1000;
  double lr = 0.008;
  std::string optimizer = "original";  // adamw, radam
  std::string lr_schedule = "adaptive";
  double top_p = 0.2;
  std::int64_t min_k = 64;
  std::int64_t max_k = 1024;
  std::string scaling_mode = "block";               // row, tensor, axis: block_size means nothing then
  std::map<std::string, OptionValue> options = {};  // others of the quantizer, by name: qmill plugins info learned_rounding
};

struct GPTQInt8ConverterOptions {
  std::int64_t block_size = 128;  // columns in a block of the algorithm: speed only
  std::string device = "cuda";
  bool actorder = true;
  bool lazy_updates = true;  // off: one column after the other, for the same codes
  bool use_triton = false;   // for GPUs: logged
  std::string scaling_mode = "row";
};

// What the three have in common. Constructors throw Error(usage) for values that are not allowed, and Error(plugin) when the quantizer is
// not installed. convert() takes a floating weight [N,K] on the CPU; it throws Error(usage) for shapes and types that do not fit,
// Error(numeric) for values that are not finite. Codes and scales are in the basis of the weight, unless store_transformed asks for
// another. [any-thread]
class QMILL_CORE_API Int8Converter {
 public:
  ConvertedWeight convert(const WeightTensor& weight, const ConverterInputs& inputs = {}) const;
  virtual ~Int8Converter();

 protected:
  struct State;
  explicit Int8Converter(std::shared_ptr<const State> state) : state_(std::move(state)) {}

 private:
  std::shared_ptr<const State> state_;
};

class QMILL_CORE_API QuIPInt8Converter final : public Int8Converter {
 public:
  explicit QuIPInt8Converter(const QuIPInt8ConverterOptions& options = {}, const Host& host = default_host());
};

class QMILL_CORE_API LearnedRoundingConverter final : public Int8Converter {
 public:
  explicit LearnedRoundingConverter(const LearnedRoundingConverterOptions& options = {}, const Host& host = default_host());
};

class QMILL_CORE_API GPTQInt8Converter final : public Int8Converter {
 public:
  explicit GPTQInt8Converter(const GPTQInt8ConverterOptions& options = {}, const Host& host = default_host());
};

}  // namespace qmill
