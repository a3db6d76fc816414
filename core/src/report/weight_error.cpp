#include "weight_error.h"

#include <algorithm>

namespace qmill {

ErrorSums measure_errors(const at::Tensor& weight, const RowDecoder& decoded, TaskPool& tasks) {
  constexpr std::int64_t kValuesPerTask = 1 << 17;
  constexpr std::int64_t kValuesPerStep = 8192;  // stay in the cache from decoding to comparing
  const std::int64_t rows = weight.dim() == 0 ? 1 : weight.size(0);
  const std::int64_t columns = rows == 0 ? 0 : weight.numel() / rows;
  const std::int64_t group = std::max<std::int64_t>(1, kValuesPerTask / std::max<std::int64_t>(1, columns));
  const std::int64_t step = std::max<std::int64_t>(1, kValuesPerStep / std::max<std::int64_t>(1, columns));
  const std::int64_t count = (rows + group - 1) / group;
  const RowDecoder original = plain_rows(weight);
  std::vector<ErrorSums> sums(static_cast<std::size_t>(count));
  tasks.parallel(count, [&](std::int64_t task) {
    thread_local std::vector<float> expected, found;
    expected.resize(static_cast<std::size_t>(step * columns));
    found.resize(static_cast<std::size_t>(step * columns));
    const std::int64_t end = std::min(rows, (task + 1) * group);
    for (std::int64_t row = task * group; row < end; row += step) {
      const std::int64_t last = std::min(end, row + step);
      original(row, last, expected.data());
      decoded(row, last, found.data());
      add_errors(expected.data(), found.data(), (last - row) * columns, sums[static_cast<std::size_t>(task)]);
    }
  });
  ErrorSums total;
  for (const ErrorSums& part : sums) total.merge(part);
  return total;
}

}  // namespace qmill
