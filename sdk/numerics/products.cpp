#include <qmill/numerics/products.h>

#include <qmill/numerics/one_thread.h>

#include <ATen/ops/mm.h>

#include <algorithm>

namespace qmill {
namespace {

constexpr std::int64_t kProductRows = 192;  // fewer would leave the products below their full speed

}  // namespace

void multiply(const at::Tensor& a, const at::Tensor& b, at::Tensor& out, LayerContext& context) {
  const std::int64_t rows = a.size(0);
  context.parallel((rows + kProductRows - 1) / kProductRows, [&](std::int64_t task) {
    context.check_cancelled();
    const OneThread one_thread;
    const std::int64_t first = task * kProductRows, count = std::min(kProductRows, rows - first);
    at::Tensor slice = out.narrow(0, first, count);
    at::mm_out(slice, a.narrow(0, first, count), b);
  });
}

double dot(const float* a, const float* b, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

}  // namespace qmill
