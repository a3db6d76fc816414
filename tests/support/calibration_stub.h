// Inputs of a layer for tests, from rows or from a Hessian alone.
#pragma once

#include <qmill/layer_context.h>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace qmill::testing {

// Inputs as real layers have them: a few directions hold most of them, columns differ in size, and a few are large.
// `columns / 8` directions, the rest noise of a tenth: more rows than columns give a condition number of about 1e4 to 1e5.
inline at::Tensor correlated_rows(std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  // The directions depend on the width alone: rows of another seed are more of the same inputs.
  at::Generator shape = at::make_generator<at::CPUGeneratorImpl>(static_cast<std::uint64_t>(columns));
  at::Generator draw = at::make_generator<at::CPUGeneratorImpl>(seed);
  const std::int64_t directions = std::max<std::int64_t>(1, columns / 8);
  const at::Tensor mix = at::randn({directions, columns}, shape).div(std::sqrt(static_cast<double>(directions)));
  const at::Tensor sizes = at::randn({columns}, shape).mul(0.7).exp();
  auto* size = sizes.mutable_data_ptr<float>();
  for (std::int64_t k = 3; k < columns; k += 61) size[k] *= 20;
  return at::mm(at::randn({rows, directions}, draw), mix).add(at::randn({rows, columns}, draw), 0.1).mul(sizes).contiguous();
}

class CalibrationStub final : public LayerCalibration {
 public:
  // `rows` F32 [T,K]; every fifth of them is kept apart, none of less than five.
  explicit CalibrationStub(const at::Tensor& rows, std::string identity = "inputs") : identity_(std::move(identity)) {
    const std::int64_t kept = rows.size(0) / 5;
    at::Tensor used = at::empty({rows.size(0) - kept, rows.size(1)}, at::kFloat);
    if (kept != 0) held_out = at::empty({kept, rows.size(1)}, at::kFloat);
    for (std::int64_t t = 0, u = 0, h = 0; t < rows.size(0); ++t)
      (t % 5 == 4 ? held_out.select(0, h++) : used.select(0, u++)).copy_(rows.select(0, t));
    fitted = used;
    const at::Tensor exact = used.to(at::kDouble);
    const at::Tensor product = at::mm(exact.t(), exact).div(used.size(0));
    given_hessian = product.add(product.t()).div(2).to(at::kFloat).contiguous();
    given_mean = used.mean({0});
  }
  // A file of statistics: no rows.
  static CalibrationStub of_hessian(const at::Tensor& hessian, std::string identity = "inputs") {
    CalibrationStub stub;
    stub.identity_ = std::move(identity);
    stub.given_hessian = hessian;
    return stub;
  }

  const std::string& identity() const override { return identity_; }
  std::int64_t row_count() const override { return fitted.defined() ? fitted.size(0) : 0; }
  at::Tensor hessian() const override {
    ++hessian_calls;
    return given_hessian;
  }
  at::Tensor mean() const override { return given_mean; }
  at::Tensor rows() const override { return fitted; }
  at::Tensor held_out_rows() const override { return held_out; }

  at::Tensor given_hessian;  // F32 [K,K], or what a test wants a quantizer to refuse
  at::Tensor given_mean;
  at::Tensor fitted;
  at::Tensor held_out;
  mutable int hessian_calls = 0;

 private:
  CalibrationStub() = default;

  std::string identity_;
};

}  // namespace qmill::testing
