// A calibration file: what it says of which layer. Knows nothing of a model.
#pragma once

#include <qmill/core/host.h>
#include <qmill/error.h>
#include <qmill/tensor.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

enum class InputKind { rows, hessian, mean, channel_max, channel_mean, input_scale };

// What the file says of one layer: numbers of tensors (safetensors), or values (JSON).
struct CalibrationEntry {
  std::string layer;
  std::map<InputKind, std::size_t> tensors;
  std::map<InputKind, std::vector<float>> values;

  bool has(InputKind kind) const { return tensors.contains(kind) || values.contains(kind); }
};

// What recordings have as "format" in their metadata. They also have the model's identity, as "checkpoint".
inline constexpr std::string_view kRecordingFormat = "qmill_recording";

class CalibrationFile {
 public:
  // A ".json" is JSON, anything else what the host opens. Headers only (JSON: the values). Throws Error(input, io) that names the file.
  CalibrationFile(const Host& host, const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const TensorSource* source() const { return source_.get(); }  // null: JSON
  const std::vector<CalibrationEntry>& entries() const { return entries_; }
  const std::vector<std::string>& unknown() const { return unknown_; }  // tensors that are no such entry
  const std::vector<std::string>& empty() const { return empty_; }      // tensors with 0 rows: no entries
  // Identity (model_identity) of the model that the inputs were recorded from; empty: the file does not say.
  std::string recorded_model() const;

  // Throws Error(input) that names entry and file for a type or shape that does not fit inputs of `columns`, which is unknown if it is
  // absent, and for entries that contradict each other.
  void check(const CalibrationEntry& entry, std::optional<std::int64_t> columns) const;

  // F32 [K] (channel_max, channel_mean, mean); checked to be finite, channel_max not to be negative.
  at::Tensor vector(const CalibrationEntry& entry, InputKind kind) const;
  // F32 [K,K]; checked to be finite and symmetric, with no negative diagonal.
  at::Tensor hessian(const CalibrationEntry& entry) const;

  std::string entry_name(const CalibrationEntry& entry, InputKind kind) const;
  Error located(Error error) const;

  // Runs what reads this file; errors about its contents name it.
  template <class Function>
  auto reading(Function function) const {
    try {
      return function();
    } catch (const Error& error) {
      throw error.kind() == ErrorKind::input && error.contexts().empty() ? located(error) : error;
    }
  }

 private:
  void read_tensors();
  void read_shared_inputs();
  void read_json();
  at::Tensor values(std::size_t tensor) const;

  std::filesystem::path path_;
  std::unique_ptr<TensorSource> source_;
  std::vector<CalibrationEntry> entries_;
  std::vector<std::string> unknown_;
  std::vector<std::string> empty_;
};

}  // namespace qmill
