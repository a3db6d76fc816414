// A LayerContext on the host's own threads and buffers.
#pragma once

#include "engine/buffer_pool.h"
#include "engine/task_pool.h"

#include <qmill/layer_context.h>

#include <future>
#include <map>

namespace qmill::bench {

class BenchContext final : public LayerContext {
 public:
  explicit BenchContext(int threads) : tasks_(threads), buffers_(std::make_shared<BufferPool>(1u << 30)) {}

  const TensorInfo& weight() const override { return layer; }
  const LayerTarget& target() const override { return where; }
  const LayerCalibration* calibration() const override { return inputs; }
  std::uint64_t seed() const override { return 0; }
  at::Tensor allocate(std::span<const std::int64_t> shape, DType dtype) override { return buffers_->allocate(shape, dtype); }
  void parallel(std::int64_t tasks, const std::function<void(std::int64_t)>& body) override { tasks_.parallel(tasks, body); }
  std::shared_ptr<const void> shared(const std::string&, const std::function<std::shared_ptr<const void>()>& make) override {
    return make();  // each measurement pays for all of it
  }
  void note(std::string) override {}
  void check_cancelled() const override {}

  // As the host runs a layer: on one of its threads, helped by the others.
  template <class Work>
  void on_worker(Work work) {
    std::promise<void> done;
    tasks_.submit([&] {
      try {
        work();
        done.set_value();
      } catch (...) {
        done.set_exception(std::current_exception());
      }
    });
    done.get_future().get();
  }

  TensorInfo layer;
  LayerTarget where;
  const LayerCalibration* inputs = nullptr;

 private:
  TaskPool tasks_;
  std::shared_ptr<BufferPool> buffers_;
};

}  // namespace qmill::bench
