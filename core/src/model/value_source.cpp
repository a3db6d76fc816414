#include "model/value_source.h"

#include <algorithm>
#include <array>

namespace qmill {
namespace {

class PlainValues final : public ValueSource {
 public:
  explicit PlainValues(const TensorSource& source) : source_(source) {}
  const std::vector<TensorInfo>& tensors() const override { return source_.tensors(); }
  at::Tensor read(std::size_t index, BufferPool& buffers, TaskPool& tasks) const override {
    return read_tensor(source_, index, buffers, tasks);
  }
  std::uint64_t reading_bytes(std::size_t index) const override { return static_cast<std::uint64_t>(tensors()[index].bytes()); }

 private:
  const TensorSource& source_;
};

}  // namespace

std::uint64_t bytes_of(const TensorSource& source) {
  std::uint64_t bytes = 0;
  for (const TensorInfo& tensor : source.tensors()) bytes += static_cast<std::uint64_t>(tensor.bytes());
  return bytes;
}

at::Tensor read_bytes(const TensorSource& source, std::size_t index, BufferPool& buffers, TaskPool& tasks) {
  at::Tensor bytes = buffers.allocate(std::array<std::int64_t, 1>{source.tensors()[index].bytes()}, DType::u8);
  const std::span out(static_cast<std::byte*>(bytes.mutable_data_ptr()), bytes.nbytes());
  constexpr std::size_t kPart = 8 << 20;
  tasks.parallel(static_cast<std::int64_t>((out.size() + kPart - 1) / kPart), [&](std::int64_t part) {
    const std::size_t begin = static_cast<std::size_t>(part) * kPart;
    source.read_part(index, begin, out.subspan(begin, std::min(kPart, out.size() - begin)));
  });
  return bytes;
}

at::Tensor read_tensor(const TensorSource& source, std::size_t index, BufferPool& buffers, TaskPool& tasks) {
  const TensorInfo& info = source.tensors()[index];
  return read_bytes(source, index, buffers, tasks).view(scalar_type(info.dtype)).view(info.shape);
}

std::unique_ptr<ValueSource> plain_values(const TensorSource& source) { return std::make_unique<PlainValues>(source); }

}  // namespace qmill
