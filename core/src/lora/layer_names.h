// The layers of a model, found by the names that other files give them.
#pragma once

#include "lora/component.h"
#include "lora/layer_map.h"

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

// A layer, by name without ".weight", and the size of its weight; columns are all dimensions after the first.
struct NamedLayer {
  std::string base;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
};

// What is known of a model besides its layers.
struct KnownModel {
  ModelKind kind = ModelKind::unknown;           // of what has no prefix of a checkpoint
  std::vector<const BlockNames*> names;          // other names of its layers, and
  std::vector<const BlockNames*> encoder_names;  // of those of text encoders in a checkpoint
};

struct LayerPlace {
  std::size_t layer = 0;         // number in LayerNames::bases()
  std::optional<RowRange> rows;  // nothing: all

  bool operator==(const LayerPlace&) const = default;
};

// Where a name in a LoRA file leads.
struct Resolution {
  std::optional<LayerPlace> place;
  Component component;              // that the name itself states
  bool is_for_other_model = false;  // it states one that is not here
};

// [any-thread]
class LayerNames {
 public:
  // Layers of a model of which nothing else is known.
  explicit LayerNames(const std::vector<std::string>& bases);
  LayerNames(std::vector<NamedLayer> layers, const KnownModel& model);

  const std::vector<std::string>& bases() const { return bases_; }
  const NamedLayer& layer(std::size_t number) const { return layers_[number]; }

  // The number of the base that is `name`, else of the one that equals it once both are without prefixes. Throws Error(input) that names
  // them when there are several.
  std::optional<std::size_t> find(std::string_view name) const;

  // The place of what a LoRA file calls `name`, in any spelling (docs/lora.md#names). Throws Error(input) that names the layers when there
  // are several.
  Resolution resolve(std::string_view name) const;

  // Whether all that is here is one model without a number, so that what a LoRA calls text encoder 2 may be it.
  bool may_be_any_text_encoder() const;

  // Whether it is known of each layer what kind of model it is of.
  bool is_known() const;

 private:
  using Index = std::multimap<std::string, LayerPlace, std::less<>>;

  // One model of a checkpoint.
  struct Model {
    Component component;
    std::set<int> numbers;                  // by which LoRAs call it, of a text encoder; none: any
    Index dotted, underscored;              // by the layers' own names
    Index other_dotted, other_underscored;  // by names of the data
  };

  Model& model_of(const Component& component);
  void add(Model& model, std::size_t number, std::string_view own_name, const std::vector<const BlockNames*>& data);
  void number_text_encoders();
  bool is_meant(const Model& model, const LoraAddress& address) const;
  std::optional<LayerPlace> find_in(const Model& model, const LoraAddress& address, std::string_view name) const;
  std::optional<LayerPlace> only(const Index& index, std::string_view key, std::string_view name) const;

  std::vector<NamedLayer> layers_;
  std::vector<std::string> bases_;
  Index exact_, short_;
  std::vector<Model> models_;
};

}  // namespace qmill
