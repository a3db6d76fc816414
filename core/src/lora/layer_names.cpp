#include "lora/layer_names.h"

#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace qmill {
namespace {

std::string with_underscores(std::string_view name) {
  std::string text(name);
  std::replace(text.begin(), text.end(), '.', '_');
  return text;
}

std::vector<NamedLayer> without_sizes(const std::vector<std::string>& bases) {
  std::vector<NamedLayer> layers;
  for (const std::string& base : bases) layers.push_back({base, 0, 0});
  return layers;
}

// Older spellings of attention in UNets: "attn1.processor.to_out" is "attn1.to_out.0".
std::string modern_attention(std::string_view name) {
  constexpr std::string_view processor = ".processor.";
  constexpr std::string_view out = ".to_out";
  std::string text(name);
  if (const std::size_t at = text.find(processor); at != std::string::npos) text.replace(at, processor.size(), ".");
  if (text.ends_with(out)) text += ".0";
  return text;
}

}  // namespace

LayerNames::LayerNames(const std::vector<std::string>& bases) : LayerNames(without_sizes(bases), {}) {}

LayerNames::LayerNames(std::vector<NamedLayer> layers, const KnownModel& model) : layers_(std::move(layers)) {
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const std::string& base = bases_.emplace_back(layers_[i].base);
    exact_.emplace(base, LayerPlace{i, {}});
    short_.emplace(without_prefixes(base), LayerPlace{i, {}});
    const LayerAddress address = layer_address(base);
    const bool is_main = address.component.kind == ModelKind::unknown;
    const Component component = is_main ? Component{model.kind, 0} : address.component;
    add(model_of(component), i, address.rest, component.kind == ModelKind::text_encoder && !is_main ? model.encoder_names : model.names);
  }
  number_text_encoders();
}

LayerNames::Model& LayerNames::model_of(const Component& component) {
  const auto found = std::find_if(models_.begin(), models_.end(), [&](const Model& model) { return model.component == component; });
  if (found != models_.end()) return *found;
  models_.push_back({component, {}, {}, {}, {}, {}});
  return models_.back();
}

void LayerNames::add(Model& model, std::size_t number, std::string_view own_name, const std::vector<const BlockNames*>& data) {
  const NamedLayer& layer = layers_[number];
  const LayerPlace whole{number, {}};
  const std::string_view own = without_prefixes(own_name);
  model.dotted.emplace(own, whole);
  model.underscored.emplace(with_underscores(own), whole);
  if (own != own_name) model.underscored.emplace(with_underscores(own_name), whole);
  for (const OtherName& other : other_names(data, own, layer.rows, layer.columns)) {
    const LayerPlace place{number, other.rows};
    const std::string_view name = without_prefixes(other.name);
    model.other_dotted.emplace(name, place);
    model.other_underscored.emplace(with_underscores(name), place);
    if (name != other.name) model.other_underscored.emplace(with_underscores(other.name), place);
  }
}

// LoRAs of a pipeline without the second of three text encoders call the third 2 or 3.
void LayerNames::number_text_encoders() {
  std::set<int> numbers;
  for (const Model& model : models_)
    if (model.component.kind == ModelKind::text_encoder) numbers.insert(model.component.number);
  for (Model& model : models_) {
    if (model.component.kind != ModelKind::text_encoder || model.component.number == 0) continue;
    model.numbers.insert(model.component.number);
    for (int below = model.component.number - 1; below > 0 && !numbers.contains(below); --below) model.numbers.insert(below);
  }
}

std::optional<LayerPlace> LayerNames::only(const Index& index, std::string_view key, std::string_view name) const {
  const auto [begin, end] = index.equal_range(key);
  if (begin == end) return std::nullopt;
  std::set<std::string> found;
  bool is_same = true;
  for (auto it = begin; it != end; ++it) {
    found.insert(bases_[it->second.layer]);
    is_same = is_same && it->second.rows == begin->second.rows;
  }
  if (found.size() > 1)
    throw Error(ErrorKind::input, fmt::format("'{}' could be each of the layers '{}'", name, fmt::join(found, "', '")),
                "name the layer as the model does");
  if (!is_same)
    throw Error(ErrorKind::input, fmt::format("'{}' could be several parts of the layer '{}'", name, *found.begin()),
                "name the layer as the model does");
  return begin->second;
}

std::optional<std::size_t> LayerNames::find(std::string_view name) const {
  auto found = only(exact_, name, name);
  if (!found) found = only(short_, without_prefixes(name), name);
  return found ? std::optional(found->layer) : std::nullopt;
}

bool LayerNames::is_meant(const Model& model, const LoraAddress& address) const {
  const Component& said = address.component;
  const ModelKind kind = model.component.kind;
  if (kind == ModelKind::other) return false;
  if (said.kind == ModelKind::unknown || kind == ModelKind::unknown) return true;
  if (kind == ModelKind::text_encoder && address.may_be_any_model) return true;
  if (said.kind != kind) return false;
  if (kind != ModelKind::text_encoder || model.numbers.empty()) return true;
  // A text encoder without a number is the first.
  const auto is_before = [&](const Model& other) {
    return other.component.kind == kind && other.component.number != 0 && other.component.number < model.component.number;
  };
  return said.number == 0 ? std::none_of(models_.begin(), models_.end(), is_before) : model.numbers.contains(said.number);
}

std::optional<LayerPlace> LayerNames::find_in(const Model& model, const LoraAddress& address, std::string_view name) const {
  if (address.is_underscored) {
    if (const auto found = only(model.underscored, address.rest, name)) return found;
    return only(model.other_underscored, address.rest, name);
  }
  const std::string_view rest = without_prefixes(address.rest);
  if (const auto found = only(model.dotted, rest, name)) return found;
  if (const auto found = only(model.other_dotted, rest, name)) return found;
  const std::string modern = modern_attention(rest);
  if (modern == rest) return std::nullopt;
  if (const auto found = only(model.dotted, modern, name)) return found;
  return only(model.other_dotted, modern, name);
}

Resolution LayerNames::resolve(std::string_view name) const {
  std::string base = layer_base(name);
  if (base.ends_with(".in_proj_weight")) base.resize(base.size() - std::string_view("_weight").size());
  const LoraAddress address = lora_address(base);
  Resolution result{only(exact_, base, name), address.component, false};
  if (result.place) return result;
  std::optional<LayerPlace> found;
  bool is_here = false;
  for (const Model& model : models_) {
    if (!is_meant(model, address)) continue;
    is_here = is_here || (model.component.kind == address.component.kind && model.component.kind != ModelKind::unknown);
    const std::optional<LayerPlace> place = find_in(model, address, name);
    if (!place) continue;
    // "transformer." is a diffusion model's, where there is one.
    if (found && !address.may_be_any_model)
      throw Error(ErrorKind::input,
                  fmt::format("'{}' could be each of the layers '{}', '{}'", name, bases_[found->layer], bases_[place->layer]),
                  "name the layer as the model does");
    if (!found || model.component.kind == address.component.kind) found = place;
  }
  result.place = found;
  result.is_for_other_model = !found && address.component.kind != ModelKind::unknown && is_known() && !is_here;
  return result;
}

bool LayerNames::may_be_any_text_encoder() const {
  return models_.size() == 1 && models_.front().component.number == 0 &&
         (models_.front().component.kind == ModelKind::text_encoder || models_.front().component.kind == ModelKind::unknown);
}

bool LayerNames::is_known() const {
  return std::none_of(models_.begin(), models_.end(), [](const Model& model) { return model.component.kind == ModelKind::unknown; });
}

}  // namespace qmill
