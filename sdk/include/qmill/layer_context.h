// What a quantizer gets for one layer in addition to the weight: target, options, calibration, memory, threads.
#pragma once

#include <qmill/coded_format.h>
#include <qmill/options.h>

#include <functional>
#include <memory>

namespace qmill {

// Where a layer goes: format, its layout for this weight, and the values of the quantizer's own options.
struct QMILL_API LayerTarget {
  const WritableFormat* format = nullptr;
  Layout layout;
  Options options;

  // The format, for quantizers that choose codes. Throws Error(internal) for one without codes.
  const CodedFormat& coded() const;
};

// Real inputs of a layer, in the original basis. Tensors that come back undefined are not known. [worker-thread]
class QMILL_API LayerCalibration {
 public:
  virtual ~LayerCalibration();

  // The same for layers that get the very same inputs (q, k and v of one attention): what is made from them can be shared, see
  // LayerContext::shared. Never empty.
  virtual const std::string& identity() const = 0;
  virtual std::int64_t row_count() const = 0;    // rows T that the figures below come from; 0: a file of statistics does not say
  virtual at::Tensor hessian() const = 0;        // F32 [K,K] = X^T X / T, symmetric, finite; computed or read by each call
  virtual at::Tensor mean() const = 0;           // F32 [K]
  virtual at::Tensor rows() const = 0;           // F32 [T,K]
  virtual at::Tensor held_out_rows() const = 0;  // F32 [V,K]: kept apart, to choose settings by; fitting to them would spoil every report
};

// Steps of a quantizer that can be done in pieces: the same bytes with less memory.
enum class Step {
  hadamard,  // rotating a weight [N,K]
  hessian,   // summing X^T X over rows [T,K]
  ldlq,      // rounding a weight [N,K] with error feedback
};

// One per call of Quantizer::quantize, used by the thread of that call (parallel() excepted).
class QMILL_API LayerContext {
 public:
  virtual ~LayerContext();

  virtual const TensorInfo& weight() const = 0;
  virtual const LayerTarget& target() const = 0;
  virtual const LayerCalibration* calibration() const = 0;  // null: the run has no real inputs for this layer
  virtual std::uint64_t seed() const = 0;                   // seed_for(seed of the run, tensor name)

  // Uninitialized memory that the host reuses from layer to layer: a fresh large allocation costs more in page faults
  // than rounding does. Contiguous, on the CPU; the tensor owns it and gives it back when it dies.
  virtual at::Tensor allocate(std::span<const std::int64_t> shape, DType dtype) = 0;

  // Calls body(0), ..., body(tasks - 1), each once, on this and on idle threads, and returns when all are done. The first
  // exception is rethrown. What body computes must not depend on the order: the same bytes for every number of threads.
  virtual void parallel(std::int64_t tasks, const std::function<void(std::int64_t)>& body) = 0;

  // What make() gives, made once for all layers that ask for `key`, and kept while memory allows; layers that ask meanwhile wait for
  // it. The key says everything that the result depends on. make() may call parallel().
  virtual std::shared_ptr<const void> shared(const std::string& key, const std::function<std::shared_ptr<const void>()>& make) = 0;

  // Values of a matrix above which this step is to be done in pieces. Default: no limit.
  virtual std::int64_t step_limit(Step step) const;

  // Says something about this layer that a person should know; it is counted and shown in the summary.
  virtual void note(std::string text) = 0;

  // Throws Error(cancelled) once the person has interrupted the run. Call it now and then in long loops.
  virtual void check_cancelled() const = 0;
};

}  // namespace qmill
