#include "commands.h"
#include "simple_command.h"

#include <qmill/core/json.h>
#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace qmill::app {
namespace {

void print_list(const Host& host) {
  fmt::print("Searched, in this order:\n");
  for (const SearchFolder& folder : host.folders())
    fmt::print("  {} ({}){}\n", folder.folder.string(), folder.origin,
               !folder.exists           ? ", does not exist"
               : folder.problem.empty() ? ""
                                        : fmt::format(", not used: {}", folder.problem));
  fmt::print("\n");
  for (const PluginCandidate& candidate : host.candidates()) {
    std::string offers;
    for (const PluginOffer& offer : candidate.offers) offers += fmt::format("{}{} {}", offers.empty() ? "" : ", ", offer.kind, offer.name);
    fmt::print("{:<11} {:<20} {}\n", plugin_status_name(candidate.status), candidate.name, offers);
    fmt::print("{:<11}   {}\n", "", candidate.file.string());
    if (!candidate.reason.empty()) fmt::print("{:<11}   {}\n", "", candidate.reason);
  }
  fmt::print("\nFormats of the program itself:");
  for (const StoredFormat* format : builtin_formats())
    fmt::print(" {}{}", format->info().name, as_writable(*format) == nullptr ? " (read only)" : "");
  fmt::print("\n");
}

void print_quantizer(const QuantizerInfo& info) {
  fmt::print("quantizer {}: {}\n", info.name, info.summary);
  if (!info.aliases.empty()) fmt::print("  also called {}\n", fmt::join(info.aliases, ", "));
  if (info.formats.empty())
    fmt::print("  writes every format with a grid\n");
  else
    fmt::print("  writes {}\n", fmt::join(info.formats, ", "));
  if (!info.own_formats.empty()) fmt::print("  and its own {}\n", fmt::join(info.own_formats, ", "));
  fmt::print("  {} calibration data\n", info.uses_calibration ? "uses" : "does not use");
  if (!info.options.empty()) fmt::print("  options (flags: qmill convert --help all):\n");
  for (const OptionSpec& option : info.options)
    fmt::print("    {:<16} {}; {} [{}]\n", option.name, option.help, option.allowed(), option_text(option.initial));
}

void print_format(const StoredFormat& format) {
  fmt::print("format {}: {}\n", format.info().name, format.info().summary);
  if (!format.info().aliases.empty()) fmt::print("  also called {}\n", fmt::join(format.info().aliases, ", "));
}

void print_plugin(const Host& host, const PluginCandidate& plugin) {
  const bool is_loaded = plugin.status == PluginCandidate::Status::loaded;
  fmt::print("plugin {}{}: {}\n  {}\n", plugin.name, is_loaded ? " " + plugin.version : "", plugin_status_name(plugin.status),
             plugin.file.string());
  if (!plugin.reason.empty()) fmt::print("  {}\n", plugin.reason);
  for (const PluginOffer& offer : plugin.offers) {
    if (offer.kind == "quantizer" && is_loaded)
      print_quantizer(host.quantizer(offer.name).info());
    else if (offer.kind == "format" && is_loaded)
      print_format(*host.find_format(offer.name));
    else
      fmt::print("{} {}\n", offer.kind, offer.name);
  }
}

// A plugin's name, the name of something that it offers, or a format's.
int print_info(const Host& host, const std::string& name, bool as_json) {
  std::vector<std::string> known;
  for (const PluginCandidate& candidate : host.candidates()) {
    known.push_back(candidate.name);
    const bool is_this = same_name(candidate.name, name);
    const bool offers_it = std::any_of(candidate.offers.begin(), candidate.offers.end(),
                                       [&](const PluginOffer& offer) { return same_name(offer.name, name); });
    for (const PluginOffer& offer : candidate.offers) known.push_back(offer.name);
    if (!is_this && !offers_it) continue;
    if (as_json)
      fmt::print("{}\n", plugin_json(host, candidate));
    else
      print_plugin(host, candidate);
    return kDone;
  }
  if (const Quantizer* quantizer = host.find_quantizer(name)) return print_info(host, quantizer->info().name, as_json);  // an alias
  if (const StoredFormat* format = host.find_format(name); format != nullptr && !as_json) {
    print_format(*format);
    return kDone;
  }
  throw Error(ErrorKind::usage, unknown_name_message("plugin", name, known));
}

}  // namespace

int run_plugins(const Words& words) {
  const SimpleCommand command("plugins", words);
  if (command.shows_help()) return kDone;
  const Arguments& arguments = command.arguments;
  const std::vector<std::string>& operands = arguments.operands();
  const Host host = command.host();
  if (operands.empty() || (operands.front() == "list" && operands.size() == 1)) {
    if (arguments.on("json"))
      fmt::print("{}\n", plugins_json(host));
    else
      print_list(host);
    return kDone;
  }
  if (operands.front() != "info" || operands.size() != 2)
    throw Error(ErrorKind::usage, fmt::format("'{}' is not what plugins takes", fmt::join(operands, " ")),
                "qmill plugins list, or qmill plugins info NAME");
  host.load_all();
  return print_info(host, operands[1], arguments.on("json"));
}

}  // namespace qmill::app
