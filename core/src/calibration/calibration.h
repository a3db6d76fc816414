// The calibration data of a run: which layers have real inputs, and what a layer's quantizer and its report get of them.
#pragma once

#include "engine/resources.h"

#include <qmill/core/calibration.h>

#include <functional>
#include <memory>

namespace qmill {

// Immutable once made, but for what it remembers. [any-thread]
class Calibration {
 public:
  // Reads headers only. Throws Error(input) that names the file for what is unreadable, has a wrong type or shape, or matches no
  // layer at all; Error(usage) for options that contradict each other. `seed` decides which rows are kept apart: one of each five, the
  // same ones for every layer of as many rows.
  Calibration(const Host& host, const TensorSource& model, const CalibrationOptions& options, std::int64_t seed);
  ~Calibration();

  const CalibrationAccount& account() const;

  // Identity (model_identity) of the model that the inputs were recorded from; empty: the data do not say.
  std::string recorded_model() const;

  // Tells the headers of the files from those of others.
  std::string identity() const;

  // Null: nothing is known of this layer's inputs. The result borrows `resources`, `values` and this object. `values` is the weight, which
  // smoothquant needs to make something of channel maxima; without it, layers that have only these have nothing.
  std::unique_ptr<LayerCalibration> for_layer(const TensorInfo& weight, const RunResources& resources, const at::Tensor& values = {}) const;

  // Whether the layer has sample rows.
  bool has_rows(const TensorInfo& weight) const;

  // Calls `visit` with all sample rows of the layer, F32 [rows,K], some at a time, in order; none is kept apart. Throws what it throws, and
  // Error(input) that names file, entry and row for a value that is not finite.
  void visit_rows(const TensorInfo& weight, const RunResources& resources, const std::function<void(const at::Tensor& rows)>& visit) const;

  // Whether for_layer, given the weight, would have a Hessian.
  bool informs(const TensorInfo& weight) const;

  // Whether for_layer would give a mean of real inputs (then the bias can be corrected).
  bool knows_mean(const TensorInfo& weight) const;

  // The static scale of the layer's inputs that the data name. Throws Error(input).
  std::optional<float> input_scale(const TensorInfo& weight) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qmill
