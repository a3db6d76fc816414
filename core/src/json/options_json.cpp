#include <qmill/core/json.h>

#include "io/json_text.h"

namespace qmill {
namespace {

using Json = nlohmann::ordered_json;

const char* type_name(const OptionValue& value) {
  if (std::holds_alternative<bool>(value)) return "bool";
  if (std::holds_alternative<std::int64_t>(value)) return "int";
  return std::holds_alternative<double>(value) ? "float" : "str";
}

Json value_json(const OptionValue& value) {
  return std::visit([](const auto& held) { return Json(held); }, value);
}

// JSON has no infinity.
Json bound(double value) { return value > -1e300 && value < 1e300 ? Json(value) : Json(nullptr); }

Json row_json(const OptionRow& row) {
  Json owners = Json::array();
  for (const auto& [quantizer, option] : row.sets) owners.push_back({{"quantizer", quantizer->info().name}, {"option", option}});
  return {{"name", row.spec.name},
          {"type", type_name(row.spec.initial)},
          {"default", row.has_default ? value_json(row.spec.initial) : Json(nullptr)},
          {"choices", row.spec.choices},
          {"takes_numbers", row.spec.takes_numbers},
          {"at_least", bound(row.spec.at_least)},
          {"at_most", bound(row.spec.at_most)},
          {"group", row.group},
          {"help", row.spec.help},
          {"is_list", row.is_list},
          {"is_path", row.is_path},
          {"is_filter", row.is_filter},
          {"is_of_weights", row.is_of_weights()},
          {"changes_bytes", row.changes_bytes},
          {"of_quantizers", owners}};
}

}  // namespace

std::string options_json(const OptionTable& table) {
  Json list = Json::array();
  for (const OptionRow& row : table.rows()) list.push_back(row_json(row));
  return json_text(list);
}

}  // namespace qmill
