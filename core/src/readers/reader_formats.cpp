#include "readers/reader_formats.h"

namespace qmill {
namespace {

constexpr ReaderFormat kFormats[] = {
    {"float8_e4m3fn", "", "0.21.0"}, {"float8_e5m2", "", "0.21.0"},
    {"nvfp4", ""},                   {"mxfp8", "0.18.0"},
    {"convrot_w4a4", "0.28.0"},      {"int8_tensorwise", "0.27.0", "0.30.0"},
    {"asym_w4a8_int8", "0.31.0"},
};

}  // namespace

bool ReaderFormat::is_read_in(ModuleKind kind) const {
  return kind == ModuleKind::linear || (kind == ModuleKind::embedding && !since_in_tables.empty());
}

const ReaderFormat* find_reader_format(std::string_view name) {
  for (const ReaderFormat& format : kFormats)
    if (format.name == name) return &format;
  return nullptr;
}

std::vector<std::string> reader_format_names() {
  std::vector<std::string> names;
  for (const ReaderFormat& format : kFormats) names.emplace_back(format.name);
  return names;
}

}  // namespace qmill
