#include "commands.h"
#include "simple_command.h"
#include "text.h"

#include <qmill/core/architecture.h>
#include <qmill/core/decoded_source.h>
#include <qmill/core/foreign_quantizers.h>
#include <qmill/core/json.h>
#include <qmill/error.h>
#include <qmill/source_details.h>

#include <fmt/format.h>

namespace qmill::app {
namespace {

std::string architecture_text(const std::optional<Architecture>& architecture) {
  if (!architecture) return "architecture not known";
  std::string text = fmt::format("{} (filter {})", architecture->name, architecture->filter->info().name);
  if (!architecture->prefix.empty()) text += fmt::format(", below '{}'", architecture->prefix);
  if (architecture->renamed_by_readers) text += ", in a layout that readers rename: not to be quantized (docs/filters.md)";
  return text;
}

void print_text(const std::string& file, const TensorSource& source, const std::vector<StoredLayerEntry>& layers,
                const std::optional<Architecture>& architecture, const std::optional<ForeignQuantizer>& quantizer) {
  std::uint64_t bytes = 0;
  for (const TensorInfo& tensor : source.tensors()) bytes += static_cast<std::uint64_t>(tensor.bytes());
  std::map<std::string, std::pair<std::size_t, std::uint64_t>> formats;
  std::map<std::string, std::string> stored_types;
  for (const StoredLayerEntry& layer : decoded_layers(source)) stored_types.emplace(layer.info.weight.name, layer.label.name);
  for (const StoredLayerEntry& layer : layers) {
    const auto stored = stored_types.find(layer.info.weight.name);
    auto& [count, size] = formats[layer.label.summary + (stored == stored_types.end() ? "" : " from " + stored->second)];
    ++count;
    size += static_cast<std::uint64_t>(layer.info.weight.bytes());
  }
  fmt::print("{}\n  {}\n  {}, {}\n", file, architecture_text(architecture), count_text(source.tensors().size(), "tensor"),
             bytes_text(bytes));
  for (const std::string& remark : source_remarks(source)) fmt::print("  {}\n", printable(remark));
  if (quantizer) fmt::print("  quantized by {}, which is not decoded: '{}'\n", quantizer->tool, quantizer->tensor);
  for (const auto& [format, entry] : formats) fmt::print("  {:>6} {:<26} {}\n", entry.first, format, bytes_text(entry.second));
  for (const auto& [key, value] : source.metadata()) {
    constexpr std::size_t kLongest = 120;
    fmt::print("  {}: {}{}\n", printable(key), printable(value.substr(0, kLongest)),
               value.size() > kLongest ? fmt::format("... ({} bytes)", value.size()) : "");
  }
}

}  // namespace

int run_inspect(const Words& words) {
  const SimpleCommand command("inspect", words);
  if (command.shows_help()) return kDone;
  const Arguments& arguments = command.arguments;
  if (arguments.operands().empty()) throw Error(ErrorKind::usage, "no file is given", "qmill inspect FILE");
  const Host host = command.host();
  const std::string& file = arguments.operands().front();
  const std::unique_ptr<TensorSource> source = host.open(file);
  try {
    if (arguments.on("json"))
      fmt::print("{}\n", inspect_json(host, *source));
    else
      print_text(file, *source, stored_layers(host, *source), recognise(host, *source), find_foreign_quantizer(source->tensors()));
  } catch (Error& error) {
    throw error.in(fmt::format("'{}'", file));
  }
  return kDone;
}

}  // namespace qmill::app
