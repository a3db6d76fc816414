#include "host/lora_names.h"

#include <algorithm>

namespace qmill {
namespace {

using namespace pack;

constexpr std::size_t kMaxLoraNames = 10'000;  // of one pack
constexpr std::int64_t kMaxColumns = 1000;

// Names of layers and blocks: parts between dots.
class LoraNameReader {
 public:
  std::vector<LoraNames> all(const Json& json) {
    std::vector<LoraNames> result;
    for (const Json& entry : array(json, "lora_names")) result.push_back(of_architectures(entry));
    return result;
  }

 private:
  std::string name(const Json& json, const char* what, bool may_have_stars) {
    if (++names_ > kMaxLoraNames) reject(fmt::format("'lora_names' has more than {} names", kMaxLoraNames));
    std::string value = text(json, what, kMaxPatternBytes);
    if (value.front() == '.' || value.back() == '.' || value.find("..") != std::string::npos)
      reject(fmt::format("'{}' has '{}', which has an empty part", what, value));
    for (std::size_t star = value.find('*'); star != std::string::npos; star = value.find('*', star + 1)) {
      const bool is_part = (star == 0 || value[star - 1] == '.') && (star + 1 == value.size() || value[star + 1] == '.');
      if (!may_have_stars || !is_part)
        reject(fmt::format("'{}' has '{}', but a star stands for a whole part of a block's name", what, value));
    }
    return value;
  }

  LoraNames of_architectures(const Json& json) {
    require_object(json, {"architectures", "names"});
    LoraNames result;
    for (const Json& entry : array(member(json, "architectures"), "architectures"))
      result.architectures.push_back(name_text(entry, "architectures"));
    return located(fmt::format("LoRA names of '{}'", result.architectures.front()), [&] {
      for (const Json& entry : array(member(json, "names"), "names")) result.names.push_back(of_blocks(entry));
      return result;
    });
  }

  BlockNames of_blocks(const Json& json) {
    require_object(json, {"blocks", "layers"});
    BlockNames result;
    if (!json.contains("blocks") && !json.contains("layers")) reject("it has neither 'blocks' nor 'layers'");
    if (json.contains("blocks")) {
      for (const auto& [model, lora] : object(json["blocks"], "blocks").items()) {
        std::string own = name(model, "blocks", true);
        // Where LoRAs leave the block out, theirs is empty.
        result.blocks.emplace_back(std::move(own), lora == "" ? std::string() : name(lora, "blocks", true));
        const auto stars = [](const std::string& text) { return std::count(text.begin(), text.end(), '*'); };
        if (stars(result.blocks.back().first) != stars(result.blocks.back().second))
          reject(fmt::format("'{}' and '{}' have different numbers of stars", result.blocks.back().first, result.blocks.back().second));
      }
    }
    if (json.contains("layers"))
      for (const auto& [layer, parts] : object(json["layers"], "layers").items())
        result.layers.push_back(
            located(fmt::format("layer '{}'", layer), [&, &key = layer, &value = parts] { return of_layer(key, value); }));
    return result;
  }

  // "to_out", ["to_q", {"name": "mlp", "columns": 4}], or {"name": "norm_out", "scale_first": true}.
  LayerParts of_layer(const std::string& layer, const Json& json) {
    LayerParts result{name(layer, "layers", false), {}, false};
    if (json.is_array()) {
      for (const Json& part : array(json, "layers")) result.parts.push_back(of_part(part));
    } else if (json.is_object()) {
      require_object(json, {"name", "scale_first"});
      result.parts.push_back({name(member(json, "name"), "name", false)});
      result.scale_first = flag(member(json, "scale_first"), "scale_first");
    } else {
      result.parts.push_back({name(json, "layers", false)});
    }
    return result;
  }

  LayerPart of_part(const Json& json) {
    if (!json.is_object()) return {name(json, "layers", false)};
    require_object(json, {"name", "columns"});
    return {name(member(json, "name"), "name", false), integer(member(json, "columns"), "columns", 1, kMaxColumns)};
  }

  static const Json& object(const Json& json, const char* what) {
    if (!json.is_object()) reject(fmt::format("'{}' is {}, expected an object", what, excerpt(json)));
    if (json.empty()) reject(fmt::format("'{}' is an empty object; leave it out", what));
    return json;
  }

  std::size_t names_ = 0;
};

}  // namespace

std::vector<LoraNames> parse_lora_names(const Json& json) { return LoraNameReader().all(json); }

}  // namespace qmill
