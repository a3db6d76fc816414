// The one pass over data that a plan may need: rules that ask how well a layer can be stored.
#pragma once

#include "model/value_source.h"

#include <qmill/core/plan.h>

#include <atomic>
#include <memory>

namespace qmill {

class Analysis {
 public:
  // Borrows everything. `cancel`: null, or what ends it with Error(cancelled).
  Analysis(const ValueSource& values, const ConvertOptions& options, const std::atomic<bool>* cancel);
  ~Analysis();

  // Why quantizing this layer is not worth it, by its shape and then by what plain rounding makes of its values; empty: it is.
  std::string inefficient(const Decision& decision, std::optional<Scaling> wanted_scaling);

  bool has_read() const { return has_read_; }

 private:
  const ValueSource& values_;
  const ConvertOptions& options_;
  const std::atomic<bool>* cancel_;
  std::unique_ptr<TaskPool> tasks_;  // made when data is first read
  std::shared_ptr<BufferPool> buffers_;
  bool has_read_ = false;
};

}  // namespace qmill
