// What a quantizer gets for one layer besides the weight: target, options, calibration, memory, threads.
#pragma once

#include <qmill/format.h>
#include <qmill/options.h>

#include <functional>

namespace qmill {

// Where a layer goes: format, its layout for this weight, and the values of the quantizer's own options.
struct LayerTarget {
  const Format* format = nullptr;
  Layout layout;
  Options options;
};

// Real inputs of a layer, in the original basis. Each call computes or reads; nothing is kept. [worker-thread]
class QMILL_API LayerCalibration {
 public:
  virtual ~LayerCalibration();
  virtual at::Tensor rows() const = 0;     // F32 [T,K], undefined when only statistics are known
  virtual at::Tensor hessian() const = 0;  // F32 [K,K] = X^T X / T
  virtual at::Tensor mean() const = 0;     // F32 [K]
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

  // Says something about this layer that a person should know; it is counted and shown in the summary.
  virtual void note(std::string text) = 0;

  // Throws Error(cancelled) once the person has interrupted the run. Call it now and then in long loops.
  virtual void check_cancelled() const = 0;
};

}  // namespace qmill
