#include "calibration/input_rows.h"

#include <qmill/error.h>
#include <qmill/numerics/one_thread.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <array>
#include <cmath>

namespace qmill {
namespace {

constexpr std::int64_t kRowsPerPart = 1024;    // of the source: few enough for memory
constexpr std::int64_t kRowsPerProduct = 256;  // enough for efficient products; sums do not depend on what is read at once
constexpr std::int64_t kBytesPerRead = 1 << 20;
constexpr std::int64_t kTile = 512;  // columns of one product, and of one task of column sums

std::int64_t parts_of(std::int64_t count, std::int64_t size) { return (count + size - 1) / size; }

void throw_if_cancelled(const RunResources& resources) {
  if (resources.cancel != nullptr && *resources.cancel) throw Error(ErrorKind::cancelled, "interrupted");
}

at::Tensor as_f32(const std::vector<double>& values, double divisor) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, at::kFloat);
  float* out = tensor.mutable_data_ptr<float>();
  for (std::size_t i = 0; i < values.size(); ++i) out[i] = static_cast<float>(values[i] / divisor);
  return tensor;
}

}  // namespace

void InputRows::read_group(std::span<const std::int64_t> which, float* out) const {
  thread_local std::vector<std::byte> buffer;
  const std::int64_t row_bytes = columns() * dtype_bits(info().dtype) / 8;
  for (std::size_t i = 0; i < which.size();) {
    // Rows next to each other, or with one between them, come in one read.
    std::size_t end = i + 1;
    while (end < which.size() && place(which[end]) - place(which[end - 1]) <= 2) ++end;
    const std::int64_t first = place(which[i]);
    buffer.resize(static_cast<std::size_t>((place(which[end - 1]) + 1 - first) * row_bytes));
    source_.read_part(index_, static_cast<std::uint64_t>(first * row_bytes), buffer);
    for (; i < end; ++i, out += columns()) {
      const std::int64_t row = place(which[i]);
      load_f32(buffer.data() + (row - first) * row_bytes, info().dtype, columns(), out);
      if (!std::isfinite(largest_magnitude(out, columns())))
        throw Error(ErrorKind::input, fmt::format("entry '{}' has a value in row {} that is not a finite F32 number", info().name, row),
                    "capture the inputs again, without that sample");
    }
  }
}

at::Tensor InputRows::read(std::span<const std::int64_t> which, const RunResources& resources) const {
  const auto count = static_cast<std::int64_t>(which.size());
  at::Tensor rows = resources.buffers.allocate(std::array{count, columns()}, DType::f32);
  float* out = rows.mutable_data_ptr<float>();
  const std::int64_t group = std::max<std::int64_t>(1, kBytesPerRead / (columns() * dtype_bits(info().dtype) / 8));
  resources.tasks.parallel(parts_of(count, group), [&](std::int64_t task) {
    const std::int64_t begin = task * group;
    const std::int64_t size = std::min(group, count - begin);
    read_group(which.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(size)), out + begin * columns());
  });
  return rows;
}

// Whole products.
std::int64_t rows_per_part(const InputRows& inputs, const RunResources& resources) {
  const std::int64_t limit = resources.thresholds.hessian.value_or(kRowsPerPart * inputs.columns());
  return std::clamp(limit / inputs.columns() / kRowsPerProduct * kRowsPerProduct, kRowsPerProduct, kRowsPerPart);
}

std::int64_t part_bytes(const InputRows& inputs) {
  return std::min(kRowsPerPart, inputs.rows()) * inputs.columns() * static_cast<std::int64_t>(sizeof(float));
}

void add_products(const at::Tensor& rows, at::Tensor& sum, TaskPool& tasks) {
  const std::int64_t columns = rows.size(1);
  const std::int64_t tiles = parts_of(columns, kTile);
  tasks.parallel(tiles * (tiles + 1) / 2, [&](std::int64_t task) {
    const OneThread one_thread;
    std::int64_t i = 0;  // task is the number of a tile in the lower triangle, row by row
    while ((i + 1) * (i + 2) / 2 <= task) ++i;
    const std::int64_t j = task - i * (i + 1) / 2;
    const auto size = [&](std::int64_t tile) { return std::min(kTile, columns - tile * kTile); };
    at::Tensor part = sum.narrow(0, i * kTile, size(i)).narrow(1, j * kTile, size(j));
    part.addmm_(rows.narrow(1, i * kTile, size(i)).t(), rows.narrow(1, j * kTile, size(j)));
  });
}

void complete_symmetric(at::Tensor& sum, double divisor, TaskPool& tasks) {
  constexpr std::int64_t kBlock = 64;  // both triangles of a block fit the cache
  const std::int64_t columns = sum.size(0);
  float* h = sum.mutable_data_ptr<float>();
  tasks.parallel(parts_of(columns, kBlock), [&](std::int64_t task) {
    const std::int64_t end = std::min(columns, (task + 1) * kBlock);
    for (std::int64_t block = 0; block < end; block += kBlock)
      for (std::int64_t i = task * kBlock; i < end; ++i)
        for (std::int64_t j = block; j < std::min(i + 1, block + kBlock); ++j)
          h[j * columns + i] = h[i * columns + j] = static_cast<float>(static_cast<double>(h[i * columns + j]) / divisor);
  });
}

InputStatistics measure_inputs(const InputRows& inputs, const RowSplit* split, bool with_hessian, const RunResources& resources) {
  const std::int64_t columns = inputs.columns();
  const auto width = static_cast<std::size_t>(columns);
  std::vector<double> sums(width), magnitudes(width), largest(width);
  InputStatistics result;
  if (with_hessian) result.hessian = at::zeros({columns, columns}, at::kFloat);
  const std::int64_t part = rows_per_part(inputs, resources);
  for (std::int64_t begin = 0; begin < inputs.rows(); begin += part) {
    throw_if_cancelled(resources);
    const std::int64_t end = std::min(inputs.rows(), begin + part);
    std::vector<std::int64_t> which, ends;
    for (std::int64_t first = begin; first < end; first += kRowsPerProduct) {
      const std::int64_t last = std::min(end, first + kRowsPerProduct);
      for (std::int64_t row = first; row < last; ++row)
        if (split == nullptr || !split->is_kept_apart(row)) which.push_back(row);
      ends.push_back(static_cast<std::int64_t>(which.size()));
    }
    const at::Tensor rows = inputs.read(which, resources);
    result.rows += rows.size(0);
    const float* x = rows.const_data_ptr<float>();
    resources.tasks.parallel(parts_of(columns, kTile), [&](std::int64_t task) {
      const std::int64_t last = std::min(columns, (task + 1) * kTile);
      for (std::int64_t row = 0; row < rows.size(0); ++row)
        for (std::int64_t column = task * kTile; column < last; ++column) {
          const auto i = static_cast<std::size_t>(column);
          const double value = x[row * columns + column];
          sums[i] += value;
          magnitudes[i] += std::abs(value);
          largest[i] = std::max(largest[i], std::abs(value));
        }
    });
    for (std::int64_t first = 0; const std::int64_t last : ends) {
      if (with_hessian && last != first) add_products(rows.narrow(0, first, last - first), result.hessian, resources.tasks);
      first = last;
    }
  }
  const auto count = static_cast<double>(result.rows);
  result.mean = as_f32(sums, count);
  result.channel_mean = as_f32(magnitudes, count);
  result.channel_max = as_f32(largest, 1);
  if (!with_hessian) return result;
  complete_symmetric(result.hessian, count, resources.tasks);
  for (std::int64_t i = 0; i < columns; ++i)
    if (!std::isfinite(result.hessian.const_data_ptr<float>()[i * (columns + 1)]))
      throw Error(ErrorKind::input, fmt::format("entry '{}': the squares of column {} are beyond the range of F32", inputs.info().name, i),
                  "capture the inputs again; a layer's inputs are not that large");
  return result;
}

}  // namespace qmill
