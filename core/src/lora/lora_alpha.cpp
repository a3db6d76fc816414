#include "lora/lora_alpha.h"

#include "io/json_text.h"
#include "io/regex.h"
#include "io/text_file.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace qmill {

struct LoraAlphas::Config {
  std::optional<double> alpha;
  std::vector<std::pair<Regex, double>> patterns;  // layers with an alpha of their own
  bool divides_by_root = false;                    // of the rank: rank-stabilized LoRA
};

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kMetadataConfig = "lora_adapter_metadata";
constexpr const char* kModelFile = "adapter_model";  // .safetensors or .bin
constexpr const char* kConfigFile = "adapter_config.json";
constexpr std::uint64_t kMaxConfigBytes = 4 << 20;

double number(const Json& value, std::string_view key) {
  if (!value.is_number())
    throw Error(ErrorKind::input, fmt::format("'{}' is {}, expected a number", key, excerpt(value)), "the file is damaged");
  return plausible_alpha(value.get<double>(), fmt::format("'{}'", key));
}

bool is_true(const Json& value, std::string_view key) {
  if (value.is_null()) return false;
  if (!value.is_boolean())
    throw Error(ErrorKind::input, fmt::format("'{}' is {}, expected true or false", key, excerpt(value)), "the file is damaged");
  return value.get<bool>();
}

// PEFT: the name, or what follows any of its dots.
Regex whole_name(const std::string& pattern) {
  try {
    return Regex(fmt::format("(.*\\.)?({})", pattern));
  } catch (const Error& error) {
    throw Error(ErrorKind::input, fmt::format("alpha_pattern: {}", error.message()), "the file is damaged");
  }
}

std::string underscored(std::string text) {
  std::replace(text.begin(), text.end(), '.', '_');
  return text;
}

double rank_of(const LoraFile& file, const LoraEntry& entry) {
  using enum AdapterPart;
  switch (entry.kind) {
    case LoraKind::low_rank:
      return static_cast<double>(file.info(entry, down).shape[0]);
    case LoraKind::hadamard:
      return static_cast<double>(file.info(entry, hada_w1_b).shape[0]);
    case LoraKind::kronecker:
      // LyCORIS: whole factors have no rank and are not scaled.
      if (entry.has(lokr_w2_b)) return static_cast<double>(file.info(entry, lokr_w2_b).shape[0]);
      if (entry.has(lokr_w1_b)) return static_cast<double>(file.info(entry, lokr_w1_b).shape[0]);
      return 0;
    case LoraKind::difference:
    case LoraKind::none:
      return 0;
  }
  return 0;
}

}  // namespace

LoraAlphas::LoraAlphas(const LoraFile& file) : file_(file), flat_(file.source().metadata()) {
  const std::map<std::string, std::string>& metadata = file.source().metadata();
  try {
    if (const auto found = metadata.find(kMetadataConfig); found != metadata.end()) {
      try {
        read_config(found->second);
      } catch (Error& error) {
        throw error.in(fmt::format("metadata '{}'", kMetadataConfig));
      }
    }
  } catch (Error& error) {
    throw file.located(error);
  }
  for (const fs::path& path : file.source().files()) {
    const fs::path config = path.parent_path() / kConfigFile;
    std::error_code ignored;
    if (path.stem() != kModelFile || !fs::is_regular_file(config, ignored) || !configs_.empty()) continue;
    try {
      read_config(read_text_file(config, kMaxConfigBytes));
    } catch (Error& error) {
      throw error.in(fmt::format("'{}'", config.string()));
    }
  }
}

LoraAlphas::~LoraAlphas() = default;

void LoraAlphas::read_config(const std::string& text) {
  const Json json = parse_json(text);
  if (!json.is_object())
    throw Error(ErrorKind::input, fmt::format("it is {}, expected a JSON object", excerpt(json)), "the file is damaged");
  for (const auto& [key, value] : json.items()) {
    // "lora_alpha", or "transformer.lora_alpha" where one file serves several parts of a model.
    const std::size_t dot = key.rfind('.');
    const std::string field = dot == std::string::npos ? key : key.substr(dot + 1);
    const bool is_known =
        field == "lora_alpha" || field == "alpha" || field == "use_rslora" || field == "fan_in_fan_out" || field == "alpha_pattern";
    if (!is_known) continue;
    Config& config = configs_[dot == std::string::npos ? "" : key.substr(0, dot + 1)];
    if (field == "lora_alpha" || field == "alpha") {
      if (!value.is_null()) config.alpha = number(value, key);
    } else if (field == "use_rslora") {
      config.divides_by_root = is_true(value, key);
    } else if (field == "fan_in_fan_out") {
      if (is_true(value, key))
        throw Error(ErrorKind::unsupported, fmt::format("'{}' is true: its weights are stored transposed", key),
                    "merge it with the program that made it");
    } else if (!value.is_null()) {
      if (!value.is_object())
        throw Error(ErrorKind::input, fmt::format("'{}' is {}, expected an object", key, excerpt(value)), "the file is damaged");
      for (const auto& [pattern, alpha] : value.items()) config.patterns.emplace_back(whole_name(pattern), number(alpha, pattern));
    }
  }
}

const LoraAlphas::Config* LoraAlphas::config_for(const LoraEntry& entry) const {
  const Config* all = nullptr;
  for (const auto& [component, config] : configs_) {
    if (component.empty()) {
      all = &config;
      continue;
    }
    if (entry.name.starts_with(component)) return &config;
    const Component stated = lora_address(component + "lora_alpha").component;
    if (stated.kind != ModelKind::unknown && is_same_component(stated, entry.component)) return &config;
  }
  // The only one there is, where names do not say more.
  const bool is_only = configs_.size() == 1 && entry.component.kind == ModelKind::unknown;
  return is_only ? &configs_.begin()->second : all;
}

void LoraAlphas::set_flat(const LoraEntry& entry, LoraAlpha& result) const {
  try {
    const std::optional<double> alpha = flat_.of(entry.component);
    if (!alpha) return;
    result.alpha = *alpha;
    result.source = AlphaSource::metadata;
  } catch (Error& error) {
    throw file_.located(error);
  }
}

LoraAlpha LoraAlphas::of(const LoraEntry& entry) const {
  LoraAlpha result;
  const double rank = rank_of(file_, entry);
  if (rank == 0) return result;
  result.alpha = result.rank = rank;
  result.source = AlphaSource::rank;
  if (const auto tensor = entry.parts.find(AdapterPart::alpha); tensor != entry.parts.end()) {
    result.alpha = static_cast<double>(file_.matrix(tensor->second).const_data_ptr<float>()[0]);
    result.source = AlphaSource::tensor;
    return result;
  }
  const std::map<std::string, std::string>& metadata = file_.source().metadata();
  for (const std::string& base : {entry.name, std::string(without_prefixes(entry.name))}) {
    const std::string key = underscored(base) + "_alpha";
    const auto found = metadata.find(key);
    if (found == metadata.end()) continue;
    const std::string& value = found->second;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result.alpha);
    if (error != std::errc() || end != value.data() + value.size())
      throw file_.located(Error(ErrorKind::input, fmt::format("metadata '{}' is '{}', expected a number", key, value.substr(0, 60)),
                                "the file is damaged"));
    try {
      plausible_alpha(result.alpha, fmt::format("metadata '{}'", key));
    } catch (Error& wrong) {
      throw file_.located(wrong);
    }
    result.source = AlphaSource::metadata;
    return result;
  }
  const Config* config = config_for(entry);
  if (config == nullptr) {
    // PEFT's configuration says all there is to say if there is one.
    if (configs_.empty()) set_flat(entry, result);
    return result;
  }
  const std::string name(without_prefixes(entry.name));
  const auto pattern = std::find_if(config->patterns.begin(), config->patterns.end(), [&](const auto& each) {
    return each.first.matches_whole(name) || each.first.matches_whole(entry.name);
  });
  if (pattern != config->patterns.end())
    result.alpha = pattern->second;
  else if (config->alpha)
    result.alpha = *config->alpha;
  else if (!config->divides_by_root)
    return result;
  if (config->divides_by_root) result.alpha *= std::sqrt(rank);
  result.source = AlphaSource::metadata;
  return result;
}

}  // namespace qmill
