#include "host/filter_pack.h"

#include "host/lora_names.h"
#include "host/pack_text.h"
#include "io/text_file.h"

#include <qmill/core/host.h>
#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>

namespace qmill {
namespace {

using namespace pack;

constexpr std::size_t kMaxFileBytes = 1 << 20;
constexpr std::size_t kMaxFilters = 1000;
constexpr std::size_t kMaxStrings = 10'000;  // of one list, references replaced
// Of all lists and filters together, references replaced: short names multiply what a short file says.
constexpr std::size_t kMaxPackPatterns = 100'000;
constexpr std::size_t kMaxPackPatternBytes = 16 << 20;
constexpr std::size_t kMaxTextBytes = 1000;

class Lists {
 public:
  // Lists of the pack; one may refer to those before it.
  explicit Lists(const Json& pack) {
    const auto found = pack.find("lists");
    if (found == pack.end()) return;
    if (!found->is_object()) reject(fmt::format("'lists' is {}, expected an object", excerpt(*found)));
    for (const auto& [name, list] : found->items()) {
      name_text(name, "lists");
      lists_[name] = located(fmt::format("list '{}'", name), [&] { return patterns(list, "patterns"); });
    }
  }

  // The patterns of a list of patterns and references such as "@norms".
  std::vector<std::string> patterns(const Json& json, const char* what) {
    std::vector<std::string> result;
    const auto add = [&](const std::string& pattern) {
      if (result.size() == kMaxStrings) reject(fmt::format("'{}' has more than {} patterns", what, kMaxStrings));
      count(pattern);
      result.push_back(pattern);
    };
    for (const Json& entry : array(json, what)) {
      const std::string pattern = text(entry, what, kMaxPatternBytes);
      if (!pattern.starts_with('@')) {
        add(pattern);
        continue;
      }
      const auto list = lists_.find(pattern.substr(1));
      if (list == lists_.end()) {
        std::vector<std::string> known;
        for (const auto& [name, ignored] : lists_) known.push_back(name);
        reject(unknown_name_message("list", pattern.substr(1), known));
      }
      for (const std::string& each : list->second) add(each);
    }
    return result;
  }

 private:
  void count(const std::string& pattern) {
    ++patterns_;
    bytes_ += pattern.size();
    if (patterns_ > kMaxPackPatterns)
      reject(fmt::format("with it the pack has more than {} patterns when lists are expanded", kMaxPackPatterns));
    if (bytes_ > kMaxPackPatternBytes)
      reject(fmt::format("with it the patterns of the pack have more than {} bytes when lists are expanded", kMaxPackPatternBytes));
  }

  std::map<std::string, std::vector<std::string>, std::less<>> lists_;
  std::size_t patterns_ = 0;  // in all that was taken apart so far
  std::size_t bytes_ = 0;
};

std::vector<std::string> keys(const Json& json, const char* what) {
  std::vector<std::string> names;
  for (const Json& entry : array(json, what)) {
    if (names.size() == kMaxStrings) reject(fmt::format("'{}' has more than {} keys", what, kMaxStrings));
    names.push_back(text(entry, what, kMaxPatternBytes));
    if (names.back().find('*') != std::string::npos)
      reject(fmt::format("'{}' has '{}', but keys are names: a star stands for nothing in them", what, names.back()));
  }
  return names;
}

TensorDimension dimension(const Json& json) {
  require_object(json, {"tensor", "axis", "equals"});
  constexpr std::int64_t kMaxAxis = 7;
  return {text(member(json, "tensor"), "tensor", kMaxPatternBytes),
          static_cast<std::size_t>(integer(member(json, "axis"), "axis", 0, kMaxAxis)),
          integer(member(json, "equals"), "equals", 0, std::int64_t{1} << 53)};
}

Fingerprint fingerprint(const Json& json) {
  require_object(json, {"name", "order", "all", "none", "dimensions", "renamed_by_readers"});
  Fingerprint print;
  print.architecture = name_text(member(json, "name"), "name");
  return located(fmt::format("architecture '{}'", print.architecture), [&] {
    print.order = static_cast<int>(integer(member(json, "order"), "order", 0, std::numeric_limits<int>::max()));
    print.all = keys(member(json, "all"), "all");
    if (json.contains("none")) print.none = keys(json["none"], "none");
    if (json.contains("dimensions"))
      for (const Json& entry : array(json["dimensions"], "dimensions")) print.dimensions.push_back(dimension(entry));
    if (json.contains("renamed_by_readers")) print.renamed_by_readers = flag(json["renamed_by_readers"], "renamed_by_readers");
    return print;
  });
}

FilterData filter(const Json& json, Lists& lists) {
  require_object(json, {"name", "category", "summary", "keep", "remove", "architectures"});
  FilterData data;
  data.info.name = name_text(member(json, "name"), "name");
  if (is_reserved_filter_name(data.info.name))
    reject(fmt::format("the filter name '{}' is reserved: `filter {}` has a meaning of its own", data.info.name, data.info.name));
  if (canonical_name(data.info.name).starts_with("no_"))
    reject(fmt::format("the filter name '{}' begins with 'no-': as a flag it would turn off another", data.info.name));
  return located(fmt::format("filter '{}'", data.info.name), [&] {
    data.info.category = text(member(json, "category"), "category", kMaxNameBytes);
    const std::vector<std::string> categories = {"text", "image", "video"};
    if (std::find(categories.begin(), categories.end(), data.info.category) == categories.end())
      reject(unknown_name_message("category", data.info.category, categories));
    data.info.summary = text(member(json, "summary"), "summary", kMaxTextBytes);
    if (json.contains("keep")) data.keep = lists.patterns(json["keep"], "keep");
    if (json.contains("remove")) data.remove = lists.patterns(json["remove"], "remove");
    if (data.keep.empty() && data.remove.empty()) reject("it has neither 'keep' nor 'remove'");
    if (json.contains("architectures"))
      for (const Json& entry : array(json["architectures"], "architectures")) data.fingerprints.push_back(fingerprint(entry));
    return data;
  });
}

void require_utf8(std::string_view text) {
  try {
    nlohmann::json(std::string(text)).dump(-1, ' ', false, nlohmann::json::error_handler_t::strict);
  } catch (const nlohmann::json::type_error&) {
    reject("it is not UTF-8 text");
  }
}

}  // namespace

FilterPack parse_filter_pack(std::string_view text_of_file) {
  if (text_of_file.size() > kMaxFileBytes)
    reject(fmt::format("it has {} bytes, allowed for filters are {}", text_of_file.size(), kMaxFileBytes));
  require_utf8(text_of_file);
  const Json json = parse_json(text_of_file);
  if (!json.is_object() || !json.contains("filter_pack")) reject("it is not a filter pack: an object with \"filter_pack\": 1 was expected");
  constexpr std::int64_t kVersion = 1;
  if (json["filter_pack"] != kVersion)
    reject(fmt::format("it is a filter pack of version {}, this program reads version {}", excerpt(json["filter_pack"]), kVersion));
  require_object(json, {"filter_pack", "name", "version", "lists", "filters", "lora_names"});
  FilterPack pack;
  pack.name = name_text(member(json, "name"), "name");
  pack.version = text(member(json, "version"), "version", kMaxNameBytes);
  Lists lists(json);
  for (const Json& entry : array(member(json, "filters"), "filters")) {
    if (pack.filters.size() == kMaxFilters) reject(fmt::format("it has more than {} filters", kMaxFilters));
    FilterData data = filter(entry, lists);
    for (const FilterData& earlier : pack.filters)
      if (same_name(earlier.info.name, data.info.name)) reject(fmt::format("it has two filters named '{}'", data.info.name));
    pack.filters.push_back(std::move(data));
  }
  if (json.contains("lora_names")) pack.lora_names = parse_lora_names(json["lora_names"]);
  return pack;
}

std::string read_filter_pack(const std::filesystem::path& file) {
  try {
    return read_text_file(file, kMaxFileBytes);
  } catch (const Error& error) {
    throw Error(error.kind(), error.message());  // where it is shown, the file is named already
  }
}

std::vector<std::string> offered_filters(std::string_view text_of_file) noexcept {
  std::vector<std::string> names;
  try {
    const Json json = parse_json(text_of_file);
    for (const Json& entry : json.at("filters"))
      if (entry.is_object() && entry.contains("name")) names.push_back(name_text(entry["name"], "name"));
  } catch (const std::exception&) {
    // What was found up to here is what there is.
  }
  return names;
}

}  // namespace qmill
