#include "lora/layer_map.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

constexpr std::size_t kMaxNames = 1000;  // of one layer

bool is_number(std::string_view part) {
  return !part.empty() && std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::string_view first_part(std::string_view& rest) {
  const std::string_view part = rest.substr(0, rest.find('.'));
  rest.remove_prefix(std::min(rest.size(), part.size() + 1));
  return part;
}

// What follows the block in the name, and the numbers for its stars; nothing: it is not in this block.
std::optional<std::string_view> below(std::string_view block, std::string_view name, std::vector<std::string_view>& numbers) {
  numbers.clear();
  while (!block.empty()) {
    const std::string_view wanted = first_part(block);
    if (name.empty()) return std::nullopt;
    const std::string_view found = first_part(name);
    if (wanted == "*" ? !is_number(found) : wanted != found) return std::nullopt;
    if (wanted == "*") numbers.push_back(found);
  }
  return name;
}

std::string filled(std::string_view block, const std::vector<std::string_view>& numbers) {
  std::string text;
  auto number = numbers.begin();
  for (const char letter : block)
    if (letter == '*')
      text += *number++;
    else
      text += letter;
  return text;
}

std::string joined(const std::string& block, std::string_view name) {
  return block.empty() ? std::string(name) : name.empty() ? block : fmt::format("{}.{}", block, name);
}

void add_parts(const LayerParts& layer, const std::string& block, std::int64_t rows, std::int64_t columns, std::vector<OtherName>& names) {
  if (layer.parts.size() == 1 && layer.parts[0].columns == 0) {
    OtherName whole{joined(block, layer.parts[0].name), {}};
    if (layer.scale_first && rows % 2 == 0 && rows / 2 == columns) whole.rows = RowRange{0, rows, true};
    names.push_back(std::move(whole));
    return;
  }
  std::int64_t left = rows, shares = 0;
  for (const LayerPart& part : layer.parts) {
    if (part.columns == 0) {
      ++shares;
      continue;
    }
    if (columns > left / part.columns) return;
    left -= part.columns * columns;
  }
  if (shares != 0 && left % shares != 0) return;
  std::int64_t first = 0;
  for (const LayerPart& part : layer.parts) {
    const std::int64_t count = part.columns == 0 ? left / shares : part.columns * columns;
    if (count != 0) names.push_back({joined(block, part.name), RowRange{first, count, false}});
    first += count;
  }
}

}  // namespace

std::vector<OtherName> other_names(const std::vector<const BlockNames*>& data, std::string_view own_name, std::int64_t rows,
                                   std::int64_t columns) {
  std::vector<OtherName> names;
  std::vector<std::string_view> numbers;
  const auto in_block = [&](const BlockNames& group, const std::string& lora_block, std::string_view rest) {
    if (group.layers.empty() && !(lora_block.empty() && rest.empty())) names.push_back({joined(lora_block, rest), {}});
    for (const LayerParts& layer : group.layers)
      if (layer.layer == rest) add_parts(layer, lora_block, rows, columns, names);
    if (names.size() > kMaxNames)
      throw Error(ErrorKind::input, fmt::format("packs of filters have more than {} names for the layer '{}'", kMaxNames, own_name),
                  "correct them (docs/filters.md)");
  };
  for (const BlockNames* group : data) {
    if (group->blocks.empty()) in_block(*group, "", own_name);
    for (const auto& [model_block, lora_block] : group->blocks)
      if (const auto rest = below(model_block, own_name, numbers)) in_block(*group, filled(lora_block, numbers), *rest);
  }
  return names;
}

}  // namespace qmill
