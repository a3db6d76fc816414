#include "lora/merged_values.h"

namespace qmill {
namespace {

class MergedValues final : public ValueSource {
 public:
  MergedValues(std::unique_ptr<ValueSource> source, std::shared_ptr<const Merge> merge)
      : source_(std::move(source)), merge_(std::move(merge)), tensors_(source_->tensors()) {
    for (std::size_t i = 0; i < tensors_.size(); ++i)
      if (merge_->changes(i)) tensors_[i].dtype = DType::f32;
  }

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }

  at::Tensor read(std::size_t index, BufferPool& buffers, TaskPool& tasks) const override {
    at::Tensor values = source_->read(index, buffers, tasks);
    return merge_->changes(index) ? merge_->apply(index, std::move(values), buffers, tasks) : values;
  }

  std::uint64_t reading_bytes(std::size_t index) const override { return source_->reading_bytes(index) + merge_->working_bytes(index); }

 private:
  const std::unique_ptr<ValueSource> source_;
  const std::shared_ptr<const Merge> merge_;
  std::vector<TensorInfo> tensors_;
};

}  // namespace

std::unique_ptr<ValueSource> values_of(const TensorSource& source, std::shared_ptr<const Merge> merge) {
  std::unique_ptr<ValueSource> values = plain_values(source);
  if (merge == nullptr) return values;
  return std::make_unique<MergedValues>(std::move(values), std::move(merge));
}

}  // namespace qmill
