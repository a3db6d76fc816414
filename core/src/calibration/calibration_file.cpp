#include "calibration/calibration_file.h"

#include "calibration/input_rows.h"
#include "io/json_text.h"
#include "io/text_file.h"

#include <qmill/error.h>
#include <qmill/names.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace qmill {
namespace {

constexpr std::uint64_t kMaxJsonBytes = 256 << 20;

// Keys of the file's metadata.
constexpr const char* kSharedInputs = "shared_inputs";  // {"LAYER": "the layer that has its entries", ...}

struct KindName {
  InputKind kind;
  std::string_view suffix;
  bool in_json;
};

constexpr std::array<KindName, 6> kKinds = {{{InputKind::rows, "input", false},
                                             {InputKind::hessian, "hessian", false},
                                             {InputKind::mean, "mean", false},
                                             {InputKind::channel_max, "channel_max", true},
                                             {InputKind::channel_mean, "channel_mean", true},
                                             {InputKind::input_scale, "input_scale", true}}};

std::string_view suffix_of(InputKind kind) {
  for (const KindName& known : kKinds)
    if (known.kind == kind) return known.suffix;
  return "";
}

bool is_value_type(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16 || dtype == DType::f64; }

std::string expected_shape(InputKind kind, std::optional<std::int64_t> columns) {
  const std::string k = columns ? std::to_string(*columns) : "K";
  switch (kind) {
    case InputKind::rows:
      return fmt::format("rows x {}", k);
    case InputKind::hessian:
      return fmt::format("{} x {}", k, k);
    case InputKind::input_scale:
      return "one value";
    default:
      return k;
  }
}

bool fits(const std::vector<std::int64_t>& shape, InputKind kind, std::optional<std::int64_t> columns) {
  const auto is_width = [&](std::int64_t size) { return size > 0 && (!columns || size == *columns); };
  switch (kind) {
    case InputKind::rows:
      return shape.size() >= 2 && is_width(shape.back());
    case InputKind::hessian:
      return shape.size() == 2 && shape[0] == shape[1] && is_width(shape[0]);
    case InputKind::input_scale:
      return shape.empty() || (shape.size() == 1 && shape[0] == 1);
    default:
      return shape.size() == 1 && is_width(shape[0]);
  }
}

float finite_number(const nlohmann::ordered_json& value, const std::string& where, bool may_be_negative) {
  const double number = value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
  const auto narrow = static_cast<float>(number);
  if (!std::isfinite(narrow) || (number < 0 && !may_be_negative))
    throw Error(ErrorKind::input,
                fmt::format("{} is {}, expected a finite number{}", where, excerpt(value), may_be_negative ? "" : " that is not negative"),
                "write the statistics again");
  return narrow;
}

}  // namespace

CalibrationFile::CalibrationFile(const Host& host, const std::filesystem::path& path) : path_(path) {
  if (path.extension() == ".json" && !path.string().ends_with(".index.json")) {
    try {
      read_json();
    } catch (const Error& error) {
      throw error.contexts().empty() ? located(error) : error;
    }
    return;
  }
  source_ = host.open(path);
  read_tensors();
  reading([&] { read_shared_inputs(); });
}

std::string CalibrationFile::recorded_model() const {
  if (source_ == nullptr) return {};
  const std::map<std::string, std::string>& metadata = source_->metadata();
  const auto format = metadata.find("format");
  const auto model = metadata.find("checkpoint");
  return format == metadata.end() || format->second != kRecordingFormat || model == metadata.end() ? std::string() : model->second;
}

Error CalibrationFile::located(Error error) const { return error.in(fmt::format("'{}'", path_.string())); }

std::string CalibrationFile::entry_name(const CalibrationEntry& entry, InputKind kind) const {
  return fmt::format("{}.{}", entry.layer, suffix_of(kind));
}

void CalibrationFile::read_tensors() {
  std::map<std::string, std::size_t> index;
  for (std::size_t i = 0; i < source_->tensors().size(); ++i) {
    const std::string& name = source_->tensors()[i].name;
    const std::size_t dot = name.rfind('.');
    const KindName* kind = nullptr;
    for (const KindName& known : kKinds)
      if (dot != std::string::npos && dot != 0 && std::string_view(name).substr(dot + 1) == known.suffix) kind = &known;
    if (kind == nullptr) {
      unknown_.push_back(name);
      continue;
    }
    const std::string layer = name.substr(0, dot);
    const TensorInfo& info = source_->tensors()[i];
    if (kind->kind == InputKind::rows && info.shape.size() >= 2 && row_count(info) == 0) {
      empty_.push_back(name);  // the layer saw no input
      continue;
    }
    const auto [entry, is_new] = index.emplace(layer, entries_.size());
    if (is_new) entries_.push_back({layer, {}, {}});
    entries_[entry->second].tensors[kind->kind] = i;
  }
}

void CalibrationFile::read_shared_inputs() {
  const auto text = source_->metadata().find(kSharedInputs);
  if (text == source_->metadata().end()) return;
  const auto refuse = [](const std::string& what, const char* expected) {
    throw Error(ErrorKind::input, fmt::format("'{}' in the metadata {}, expected {}", kSharedInputs, what, expected),
                "record the inputs again");
  };
  const nlohmann::ordered_json shared = parse_json(text->second);
  if (!shared.is_object()) refuse(fmt::format("is {}", excerpt(shared)), "an object with a member per layer");
  std::map<std::string, std::size_t> index;
  for (std::size_t i = 0; i < entries_.size(); ++i) index.emplace(entries_[i].layer, i);
  for (const auto& [layer, other] : shared.items()) {
    if (!other.is_string()) refuse(fmt::format("has {} for '{}'", excerpt(other), layer), "the name of a layer");
    const auto found = index.find(other.get<std::string>());
    if (index.contains(layer)) refuse(fmt::format("names '{}', which has entries of its own", layer), "one or the other");
    if (found == index.end()) {
      // A layer without rows may share them, too.
      if (std::find(empty_.begin(), empty_.end(), other.get<std::string>() + ".input") == empty_.end())
        refuse(fmt::format("says that '{}' has the inputs of '{}', which has no entries", layer, other.get<std::string>()),
               "a layer that has some");
      empty_.push_back(layer + ".input");
      continue;
    }
    entries_.push_back({layer, entries_[found->second].tensors, {}});
  }
}

void CalibrationFile::read_json() {
  const nlohmann::ordered_json json = parse_json(read_text_file(path_, kMaxJsonBytes));
  if (!json.is_object())
    throw Error(ErrorKind::input, fmt::format("it is {}, expected an object with a member per layer", excerpt(json)),
                "see docs/calibration.md");
  for (const auto& [layer, value] : json.items()) {
    CalibrationEntry entry{layer, {}, {}};
    if (value.is_number()) {
      entry.values[InputKind::input_scale] = {finite_number(value, fmt::format("'{}'", layer), false)};
    } else if (value.is_object()) {
      for (const auto& [key, member] : value.items()) {
        const KindName* kind = nullptr;
        for (const KindName& known : kKinds)
          if (known.in_json && known.suffix == key) kind = &known;
        const std::string where = fmt::format("'{}' of '{}'", key, layer);
        if (kind == nullptr)
          throw Error(ErrorKind::input, fmt::format("{} is not known; allowed: channel_max, channel_mean, input_scale", where),
                      "rows and Hessians need a .safetensors file");
        std::vector<float>& values = entry.values[kind->kind];
        if (kind->kind == InputKind::input_scale) {
          values = {finite_number(member, where, false)};
          continue;
        }
        if (!member.is_array())
          throw Error(ErrorKind::input, fmt::format("{} is {}, expected a list of numbers", where, excerpt(member)),
                      "write the statistics again");
        for (const auto& number : member) values.push_back(finite_number(number, where, kind->kind == InputKind::channel_mean));
      }
    } else {
      throw Error(ErrorKind::input, fmt::format("'{}' is {}, expected an object or a number", layer, excerpt(value)),
                  "see docs/calibration.md");
    }
    entries_.push_back(std::move(entry));
  }
}

void CalibrationFile::check(const CalibrationEntry& entry, std::optional<std::int64_t> columns) const {
  for (const auto& [kind, index] : entry.tensors) {
    const TensorInfo& info = source_->tensors()[index];
    if (!is_value_type(info.dtype) || !fits(info.shape, kind, columns))
      throw located(Error(ErrorKind::input,
                          fmt::format("entry '{}' is {} {}, expected F32, F16, BF16 or F64, {}{}", info.name, dtype_name(info.dtype),
                                      info.shape_text(), expected_shape(kind, columns), columns ? " as the layer's columns ask" : ""),
                          "capture it from this model, as docs/calibration.md shows"));
  }
  for (const auto& [kind, values] : entry.values) {
    const std::vector<std::int64_t> shape = {static_cast<std::int64_t>(values.size())};
    if (!fits(shape, kind, columns))
      throw located(
          Error(ErrorKind::input,
                fmt::format("entry '{}' has {} values, expected {}", entry_name(entry, kind), values.size(), expected_shape(kind, columns)),
                "capture it from this model, as docs/calibration.md shows"));
  }
  const auto refuse = [&](InputKind kind, const char* why, const char* advice) {
    throw located(Error(ErrorKind::input, fmt::format("entry '{}' {}", entry_name(entry, kind), why), advice));
  };
  for (const InputKind kind : {InputKind::hessian, InputKind::mean})
    if (entry.has(InputKind::rows) && entry.has(kind)) refuse(kind, "is beside rows, and would be computed from them", "keep one of them");
  if (entry.has(InputKind::mean) && !entry.has(InputKind::hessian) && !entry.has(InputKind::rows))
    refuse(InputKind::mean, "stands alone, expected a Hessian with it", "add the entry .hessian, or rows");
}

at::Tensor CalibrationFile::values(std::size_t tensor) const {
  const TensorInfo& info = source_->tensors()[tensor];
  constexpr std::int64_t kPart = 1 << 20;  // values
  at::Tensor values = at::empty(info.shape, at::kFloat);
  const std::int64_t size = dtype_bits(info.dtype) / 8;
  std::vector<std::byte> bytes;
  for (std::int64_t begin = 0; begin < info.elements(); begin += kPart) {
    const std::int64_t count = std::min(kPart, info.elements() - begin);
    bytes.resize(static_cast<std::size_t>(count * size));
    source_->read_part(tensor, static_cast<std::uint64_t>(begin * size), bytes);
    float* out = values.mutable_data_ptr<float>() + begin;
    load_f32(bytes.data(), info.dtype, count, out);
    if (!std::isfinite(largest_magnitude(out, count)))
      throw located(Error(ErrorKind::input, fmt::format("entry '{}' has values that are not finite F32 numbers", info.name),
                          "capture the inputs again"));
  }
  return values;
}

at::Tensor CalibrationFile::vector(const CalibrationEntry& entry, InputKind kind) const {
  at::Tensor result;
  if (const auto found = entry.tensors.find(kind); found != entry.tensors.end()) {
    result = values(found->second);
  } else {
    const std::vector<float>& list = entry.values.at(kind);
    result = at::empty({static_cast<std::int64_t>(list.size())}, at::kFloat);
    std::copy(list.begin(), list.end(), result.mutable_data_ptr<float>());
  }
  const float* data = result.const_data_ptr<float>();
  for (std::int64_t i = 0; kind == InputKind::channel_max && i < result.numel(); ++i)
    if (data[i] < 0)
      throw located(Error(ErrorKind::input,
                          fmt::format("entry '{}' is {} at {}, expected no negative magnitude", entry_name(entry, kind), data[i], i),
                          "capture the inputs again"));
  return result;
}

at::Tensor CalibrationFile::hessian(const CalibrationEntry& entry) const {
  constexpr double kTolerance = 1e-4;  // of the geometric mean of the two diagonal values
  at::Tensor matrix = values(entry.tensors.at(InputKind::hessian));
  const std::int64_t columns = matrix.size(0);
  float* h = matrix.mutable_data_ptr<float>();
  const auto refuse = [&](const std::string& what, const char* expected) {
    throw located(Error(ErrorKind::input, fmt::format("entry '{}' {}, expected {}", entry_name(entry, InputKind::hessian), what, expected),
                        "a Hessian is X^T X / T of real inputs X"));
  };
  for (std::int64_t i = 0; i < columns; ++i)
    if (h[i * columns + i] < 0) refuse(fmt::format("has {} on its diagonal at {}", h[i * columns + i], i), "no negative value there");
  constexpr std::int64_t kBlock = 64;
  for (std::int64_t rows = 0; rows < columns; rows += kBlock)
    for (std::int64_t block = 0; block <= rows; block += kBlock)
      for (std::int64_t i = rows; i < std::min(columns, rows + kBlock); ++i)
        for (std::int64_t j = block; j < std::min(i, block + kBlock); ++j) {
          float& low = h[i * columns + j];
          float& high = h[j * columns + i];
          const double allowed = kTolerance * std::sqrt(static_cast<double>(h[i * columns + i]) * h[j * columns + j]);
          if (std::abs(static_cast<double>(low) - high) > allowed)
            refuse(fmt::format("has {} at {}, {} and {} at {}, {}", low, i, j, high, j, i), "the same value");
          low = high = static_cast<float>((static_cast<double>(low) + high) / 2);
        }
  return matrix;
}

}  // namespace qmill
