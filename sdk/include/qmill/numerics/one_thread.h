// Keeps LibTorch on the calling thread while this object lives. With another number of threads, its results have other last bits.
#pragma once

#include <ATen/Parallel.h>

namespace qmill {

class OneThread {
 public:
  OneThread() {
    if (before_ != 1) at::set_num_threads(1);
  }
  ~OneThread() {
    if (before_ != 1) at::set_num_threads(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_ = at::get_num_threads();
};

}  // namespace qmill
