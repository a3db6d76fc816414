// What kinds of inputs have in common that are known by less than their rows.
#pragma once

#include <qmill/layer_context.h>

#include <string>
#include <utility>

namespace qmill {

// Nothing is known but what derived classes say.
class KnownInputs : public LayerCalibration {
 public:
  explicit KnownInputs(std::string identity) : identity_(std::move(identity)) {}
  const std::string& identity() const override { return identity_; }
  std::int64_t row_count() const override { return 0; }
  at::Tensor mean() const override { return {}; }
  at::Tensor rows() const override { return {}; }
  at::Tensor held_out_rows() const override { return {}; }

 private:
  const std::string identity_;
};

}  // namespace qmill
