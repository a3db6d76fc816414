#include "read_tensor.h"

#include <algorithm>
#include <array>

namespace qmill {

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

}  // namespace qmill
