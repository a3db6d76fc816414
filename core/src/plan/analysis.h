// The one pass over data that a plan may need: rules that ask how well a layer can be stored.
#pragma once

#include <qmill/core/plan.h>

#include <memory>

namespace qmill {

class TaskPool;
class BufferPool;

class Analysis {
 public:
  // `merge`: null, or what changes layers before they are judged. Borrows everything.
  Analysis(const TensorSource& source, const ConvertOptions& options, const Merge* merge);
  ~Analysis();

  // Why quantizing this layer is not worth it, by its shape and then by what plain rounding makes of its values; empty: it is.
  std::string inefficient(const Decision& decision, Scaling wanted_scaling);

  bool has_read() const { return has_read_; }

 private:
  const TensorSource& source_;
  const ConvertOptions& options_;
  const Merge* merge_;
  std::unique_ptr<TaskPool> tasks_;  // made when data is first read
  std::shared_ptr<BufferPool> buffers_;
  bool has_read_ = false;
};

}  // namespace qmill
