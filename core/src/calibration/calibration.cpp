#include "calibration/calibration.h"

#include "lora/lora_file.h"
#include "calibration/calibration_file.h"
#include "model/content_hash.h"
#include "calibration/input_rows.h"
#include "calibration/known_inputs.h"
#include "calibration/substitute_hessian.h"
#include "model/layers.h"

#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>

#include <functional>
#include <mutex>
#include <numeric>
#include <set>

namespace qmill {
struct Calibration::State {
  // What a layer's inputs are known by.
  enum class Source { none, rows, hessian, smoothed, lora, channels };

  struct LayerEntry {
    std::string base;
    std::int64_t columns = 0;
    Source source = Source::none;
    const CalibrationEntry* entry = nullptr;  // what the data say, if they say anything
    std::optional<std::size_t> pair;          // number among the LoRA's entries
  };

  CalibrationOptions options;
  std::int64_t seed = 0;
  std::optional<CalibrationFile> file;
  std::optional<LayerNames> names;
  std::optional<LoraFile> lora;
  std::vector<LayerEntry> layers;
  std::map<std::string, std::size_t> by_base;
  std::set<std::size_t> common_shapes;  // tensors of the file that may equal another of it, by type and shape
  CalibrationAccount account;

  mutable std::mutex mutex;
  mutable std::map<std::string, at::Tensor> means;  // by identity

  void find_layers(const TensorSource& model);
  void match_data();
  void match_lora(const Host& host);
  void decide();
  void find_common_shapes();

  // The sample rows of an entry that has some.
  InputRows rows(const CalibrationEntry& entry) const { return {*file->source(), entry.tensors.at(InputKind::rows), options.samples}; }

  const LayerEntry* layer(const TensorInfo& weight) const {
    const auto found = by_base.find(layer_base(weight.name));
    return found == by_base.end() || weight.shape.size() != 2 ? nullptr : &layers[found->second];
  }

  // What tells the content of these tensors of the file from that of others.
  std::string identity(std::string_view kind, const std::string& base, std::initializer_list<std::optional<std::size_t>> tensors,
                       TaskPool& tasks) const {
    std::string text(kind);
    for (const std::optional<std::size_t>& tensor : tensors) {
      if (!tensor) continue;
      if (!common_shapes.contains(*tensor)) return fmt::format("{} of {}", kind, base);
      text += " " + content_hash(*file->source(), *tensor, tasks);
    }
    return text;
  }
};

namespace {

class RowInputs final : public LayerCalibration {
 public:
  RowInputs(const CalibrationFile& file, const InputRows& inputs, std::int64_t seed, std::function<std::string()> identity,
            std::function<at::Tensor(const std::string&, at::Tensor)> remembered_mean, const RunResources& resources)
      : file_(file),
        inputs_(inputs),
        split_(inputs_.rows(), seed),
        make_identity_(std::move(identity)),
        remembered_mean_(std::move(remembered_mean)),
        resources_(resources) {}

  const std::string& identity() const override {
    std::call_once(identified_, [&] { identity_ = file_.reading([&] { return make_identity_(); }); });
    return identity_;
  }
  std::int64_t row_count() const override { return split_.fitted(); }
  at::Tensor hessian() const override {
    const InputStatistics statistics = file_.reading([&] { return measure_inputs(inputs_, &split_, true, resources_); });
    remembered_mean_(identity(), statistics.mean);
    return statistics.hessian;
  }
  at::Tensor mean() const override {
    if (const at::Tensor known = remembered_mean_(identity(), {}); known.defined()) return known;
    return remembered_mean_(identity(), file_.reading([&] { return measure_inputs(inputs_, &split_, false, resources_).mean; }));
  }
  at::Tensor rows() const override {
    return file_.reading([&] { return inputs_.read(split_.fitted_rows(0, inputs_.rows()), resources_); });
  }
  at::Tensor held_out_rows() const override {
    if (split_.kept_apart() == 0) return {};
    return file_.reading([&] { return inputs_.read(split_.kept_rows(kMostKeptRows), resources_); });
  }

 private:
  const CalibrationFile& file_;
  const InputRows inputs_;
  const RowSplit split_;
  const std::function<std::string()> make_identity_;
  const std::function<at::Tensor(const std::string&, at::Tensor)> remembered_mean_;
  const RunResources& resources_;
  mutable std::once_flag identified_;
  mutable std::string identity_;
};

class HessianInputs final : public KnownInputs {
 public:
  HessianInputs(std::string identity, const CalibrationFile& file, const CalibrationEntry& entry)
      : KnownInputs(std::move(identity)), file_(file), entry_(entry) {}
  at::Tensor hessian() const override { return file_.hessian(entry_); }
  at::Tensor mean() const override { return entry_.has(InputKind::mean) ? file_.vector(entry_, InputKind::mean) : at::Tensor(); }

 private:
  const CalibrationFile& file_;
  const CalibrationEntry& entry_;
};

class LoraInputs final : public KnownInputs {
 public:
  LoraInputs(std::string identity, const LoraFile& lora, const LoraEntry& pair, const RunResources& resources)
      : KnownInputs(std::move(identity)), lora_(lora), pair_(pair), resources_(resources) {}
  at::Tensor hessian() const override {
    const at::Tensor down = lora_.matrix(pair_, AdapterPart::down);
    return lora_hessian(down.reshape({down.size(0), -1}), resources_.tasks);
  }

 private:
  const LoraFile& lora_;
  const LoraEntry& pair_;
  const RunResources& resources_;
};

class SmoothedInputs final : public KnownInputs {
 public:
  SmoothedInputs(std::string identity, const CalibrationFile& file, const CalibrationEntry& entry, const at::Tensor& weight, double alpha,
                 const RunResources& resources)
      : KnownInputs(std::move(identity)), file_(file), entry_(entry), weight_(weight), alpha_(alpha), resources_(resources) {}
  at::Tensor hessian() const override {
    const at::Tensor factors =
        smoothing_factors(file_.vector(entry_, InputKind::channel_max), largest_of_columns(weight_, resources_.tasks), alpha_);
    return diagonal_hessian(factors);
  }

 private:
  const CalibrationFile& file_;
  const CalibrationEntry& entry_;
  const at::Tensor weight_;
  const double alpha_;
  const RunResources& resources_;
};

std::optional<std::size_t> tensor_of(const CalibrationEntry& entry, InputKind kind) {
  const auto found = entry.tensors.find(kind);
  return found == entry.tensors.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace

void Calibration::State::find_layers(const TensorSource& model) {
  std::vector<std::string> bases;
  for (const TensorInfo& tensor : model.tensors()) {
    if (!is_layer(tensor) || tensor.elements() == 0) continue;
    const std::string base = layer_base(tensor.name);
    if (!by_base.emplace(base, layers.size()).second) continue;
    layers.push_back({base, tensor.shape[1], Source::none, nullptr, std::nullopt});
    bases.push_back(base);
  }
  names.emplace(std::move(bases));
}

void Calibration::State::match_data() {
  account.unmatched_entries = file->unknown();
  account.empty_entries = file->empty();
  bool matched = false;
  for (const CalibrationEntry& entry : file->entries()) {
    std::optional<std::size_t> found;
    try {
      found = names->find(layer_base(entry.layer));
    } catch (const Error& error) {
      throw file->located(error);
    }
    if (!found) {
      for (const auto& [kind, tensor] : entry.tensors) account.unmatched_entries.push_back(file->entry_name(entry, kind));
      if (entry.tensors.empty()) account.unmatched_entries.push_back(entry.layer);
      continue;
    }
    LayerEntry& layer = layers[*found];
    if (layer.entry != nullptr)
      throw file->located(Error(ErrorKind::input,
                                fmt::format("'{}' and '{}' are both the layer '{}'", layer.entry->layer, entry.layer, layer.base),
                                "keep one of them"));
    file->check(entry, layer.columns);
    layer.entry = &entry;
    matched = true;
  }
  if (matched) return;
  const std::string found = !account.empty_entries.empty() && account.unmatched_entries.empty()
                                ? fmt::format("its entries have 0 rows, such as '{}'", account.empty_entries.front())
                            : account.unmatched_entries.empty() ? "it has no entries"
                                                                : fmt::format("it has '{}'", account.unmatched_entries.front());
  throw file->located(Error(ErrorKind::input,
                            fmt::format("no entry matches a layer of the model: {}, expected names such as '{}.input'", found,
                                        layers.empty() ? "LAYER" : layers.front().base),
                            "capture it from this model, as docs/calibration.md shows"));
}

void Calibration::State::match_lora(const Host& host) {
  lora.emplace(options.lora, host.open(options.lora), *names);
  account.unmatched_entries.insert(account.unmatched_entries.end(), lora->unmatched().begin(), lora->unmatched().end());
  bool matched = false;
  for (std::size_t i = 0; i < lora->entries().size(); ++i) {
    const LoraEntry& pair = lora->entries()[i];
    if (pair.kind != LoraKind::low_rank) {  // whose directions are not at hand
      for (const auto& [part, tensor] : pair.parts) account.unmatched_entries.push_back(lora->info(tensor).name);
      continue;
    }
    const TensorInfo& down = lora->info(pair, AdapterPart::down);
    LayerEntry& layer = layers[pair.place.layer];
    if (down.elements() / down.shape[0] != layer.columns)
      throw lora->located(
          Error(ErrorKind::input,
                fmt::format("'{}' is {}, expected {} columns, as layer '{}' has", down.name, down.shape_text(), layer.columns, layer.base),
                "use a LoRA of this model"));
    layer.pair = i;
    matched = true;
  }
  if (matched) return;
  const std::vector<std::string>& unmatched = lora->unmatched().empty() ? account.unmatched_entries : lora->unmatched();
  throw lora->located(Error(ErrorKind::input,
                            fmt::format("no pair of LoRA matrices matches a layer of the model{}",
                                        unmatched.empty() ? "" : fmt::format(": it has '{}'", unmatched.front())),
                            "use a LoRA of this model that has the model's own names of layers, or leave out `calibration_lora`"));
}

void Calibration::State::decide() {
  account.layers = layers.size();
  for (LayerEntry& layer : layers) {
    const auto has = [&](InputKind kind) { return layer.entry != nullptr && layer.entry->has(kind); };
    if (has(InputKind::rows)) {
      layer.source = Source::rows;
      const InputRows inputs = rows(*layer.entry);
      const RowSplit split(inputs.rows(), seed);
      account.unused_rows += row_count(inputs.info()) - inputs.rows();
      account.with_rows.push_back({layer.base, split.rows(), split.kept_apart()});
    } else if (has(InputKind::hessian)) {
      layer.source = Source::hessian;
      account.with_hessian.push_back(layer.base);
    } else if (has(InputKind::channel_max) && options.smoothquant) {
      layer.source = Source::smoothed;
      account.smoothed.push_back(layer.base);
    } else if (layer.pair) {
      layer.source = Source::lora;
      account.guided_by_lora.push_back(layer.base);
    } else if (layer.entry != nullptr) {
      layer.source = Source::channels;
      account.with_channels.push_back(layer.base);
    } else {
      account.without.push_back(layer.base);
    }
  }
}

void Calibration::State::find_common_shapes() {
  if (!file || file->source() == nullptr) return;
  std::map<std::pair<DType, std::vector<std::int64_t>>, std::vector<std::size_t>> by_shape;
  for (const LayerEntry& layer : layers) {
    if (layer.entry == nullptr) continue;
    for (const auto& [kind, tensor] : layer.entry->tensors) {
      const TensorInfo& info = file->source()->tensors()[tensor];
      by_shape[{info.dtype, info.shape}].push_back(tensor);
    }
  }
  for (const auto& [shape, tensors] : by_shape)
    if (tensors.size() > 1) common_shapes.insert(tensors.begin(), tensors.end());
}

Calibration::Calibration(const Host& host, const TensorSource& model, const CalibrationOptions& options, std::int64_t seed)
    : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.options = options;
  state.seed = seed;
  if (options.smoothquant && options.data.empty())
    throw Error(ErrorKind::usage, "`smoothquant` weights columns by the inputs, but no inputs are given",
                "add `calibration_data FILE` (docs/calibration.md)");
  if (!(options.smoothquant_alpha >= 0 && options.smoothquant_alpha <= 1))
    throw Error(ErrorKind::usage, fmt::format("`smoothquant_alpha` is {}; allowed: a number from 0 to 1", options.smoothquant_alpha));
  if (options.samples < 1)
    throw Error(ErrorKind::usage, fmt::format("`calib_samples` is {}; allowed: an integer of at least 1", options.samples));
  state.find_layers(model);
  if (!options.data.empty()) {
    state.file.emplace(host, options.data);
    state.match_data();
  }
  if (!options.lora.empty()) state.match_lora(host);
  state.decide();
  state.find_common_shapes();
}

Calibration::~Calibration() = default;

const CalibrationAccount& Calibration::account() const { return state_->account; }

std::string Calibration::recorded_model() const { return state_->file ? state_->file->recorded_model() : std::string(); }

std::string Calibration::identity() const {
  std::string text;
  if (state_->file && state_->file->source() != nullptr) text += header_hash(*state_->file->source()) + "\n";
  if (state_->lora) text += header_hash(state_->lora->source()) + "\n";
  return text;
}

bool Calibration::has_rows(const TensorInfo& weight) const {
  const State::LayerEntry* layer = state_->layer(weight);
  return layer != nullptr && layer->source == State::Source::rows;
}

void Calibration::visit_rows(const TensorInfo& weight, const RunResources& resources,
                             const std::function<void(const at::Tensor& rows)>& visit) const {
  constexpr std::int64_t kRowsPerVisit = 1024;
  if (!has_rows(weight)) return;
  const CalibrationFile& file = *state_->file;
  const InputRows inputs = state_->rows(*state_->layer(weight)->entry);
  for (std::int64_t begin = 0; begin < inputs.rows(); begin += kRowsPerVisit) {
    std::vector<std::int64_t> which(static_cast<std::size_t>(std::min(kRowsPerVisit, inputs.rows() - begin)));
    std::iota(which.begin(), which.end(), begin);
    at::Tensor rows;
    try {
      rows = inputs.read(which, resources);
    } catch (const Error& error) {
      throw error.kind() == ErrorKind::input && error.contexts().empty() ? file.located(error) : error;
    }
    visit(rows);
  }
}

bool Calibration::informs(const TensorInfo& weight) const {
  const State::LayerEntry* layer = state_->layer(weight);
  return layer != nullptr && layer->source != State::Source::none && layer->source != State::Source::channels;
}

bool Calibration::knows_mean(const TensorInfo& weight) const {
  const State::LayerEntry* layer = state_->layer(weight);
  if (layer == nullptr) return false;
  return layer->source == State::Source::rows || (layer->source == State::Source::hessian && layer->entry->has(InputKind::mean));
}

std::optional<float> Calibration::input_scale(const TensorInfo& weight) const {
  const State::LayerEntry* layer = state_->layer(weight);
  if (layer == nullptr || layer->entry == nullptr || !layer->entry->has(InputKind::input_scale)) return std::nullopt;
  return state_->file->vector(*layer->entry, InputKind::input_scale).item<float>();
}

std::unique_ptr<LayerCalibration> Calibration::for_layer(const TensorInfo& weight, const RunResources& resources,
                                                         const at::Tensor& values) const {
  const State& state = *state_;
  const State::LayerEntry* layer = state.layer(weight);
  if (layer == nullptr) return nullptr;
  switch (layer->source) {
    case State::Source::rows: {
      const std::size_t rows = layer->entry->tensors.at(InputKind::rows);
      const auto identity = [&state, &resources, layer, rows] { return state.identity("rows", layer->base, {rows}, resources.tasks); };
      const auto remembered_mean = [&state](const std::string& inputs, at::Tensor mean) {
        const std::lock_guard lock(state.mutex);
        at::Tensor& known = state.means[inputs];
        if (mean.defined()) known = std::move(mean);
        return known;
      };
      return std::make_unique<RowInputs>(*state.file, state.rows(*layer->entry), state.seed, identity, remembered_mean, resources);
    }
    case State::Source::hessian: {
      const CalibrationEntry& entry = *layer->entry;
      return std::make_unique<HessianInputs>(
          state.identity("hessian", layer->base, {tensor_of(entry, InputKind::hessian), tensor_of(entry, InputKind::mean)},
                         resources.tasks),
          *state.file, entry);
    }
    case State::Source::smoothed:
      if (!values.defined()) return nullptr;
      return std::make_unique<SmoothedInputs>("smoothed " + layer->base, *state.file, *layer->entry, values,
                                              state.options.smoothquant_alpha, resources);
    case State::Source::lora:
      return std::make_unique<LoraInputs>("lora " + layer->base, *state.lora, state.lora->entries()[*layer->pair], resources);
    case State::Source::none:
    case State::Source::channels:
      break;
  }
  return nullptr;
}

}  // namespace qmill
