#include "commands.h"
#include "json_output.h"
#include "simple_command.h"
#include "text.h"

#include <qmill/core/edit.h>
#include <qmill/core/process.h>
#include <qmill/error.h>

#include <fmt/format.h>

#include <sstream>

namespace qmill::app {
namespace {

std::vector<std::string> split_keys(const std::string& text) {
  std::vector<std::string> keys;
  std::istringstream stream(text);
  for (std::string key; std::getline(stream, key, ',');) {
    const std::size_t begin = key.find_first_not_of(" \t");
    keys.push_back(begin == std::string::npos ? "" : key.substr(begin, key.find_last_not_of(" \t") + 1 - begin));
  }
  return keys;
}

MarkerEdit marker_edit(const Arguments& arguments) {
  std::vector<std::string> files = arguments.operands();
  if (arguments.given("input")) files.insert(files.begin(), arguments.text("input"));
  if (arguments.given("output")) files.push_back(arguments.text("output"));
  if (files.empty()) throw Error(ErrorKind::usage, "no file is given", "qmill edit FILE --remove-keys KEYS");
  if (files.size() > 2) throw Error(ErrorKind::usage, fmt::format("edit takes a file and an output; '{}' is one more", files[2]));
  MarkerEdit edit;
  edit.input = files[0];
  edit.output = files.size() > 1 ? std::filesystem::path(files[1]) : default_edited_output(edit.input);
  edit.overwrite = arguments.on("overwrite");
  edit.sync = arguments.on("sync");
  if (arguments.given("remove-keys")) {
    edit.remove = split_keys(arguments.text("remove-keys"));
    if (edit.remove.empty()) edit.remove.emplace_back();  // said to be wrong there
  }
  edit.add = arguments.text("add-keys");
  if (arguments.given("add-keys")) edit.add = parse_added_keys(edit.add);
  edit.filter = arguments.text("quant-filter");
  edit.rebuild_header = arguments.on("save-quant-metadata");
  return edit;
}

}  // namespace

int run_edit(const Words& words) {
  const SimpleCommand command("edit", words);
  if (command.shows_help()) return kDone;
  const MarkerEdit edit = marker_edit(command.arguments);
  const EditReport report = edit_markers(command.host(), edit, &watch_interrupts());
  if (command.arguments.on("json")) {
    print_json({{"output", edit.output.string()},
                {"output_bytes", report.bytes_written},
                {"selected", report.selected},
                {"changed", report.changed},
                {"warnings", report.warnings}});
    return kDone;
  }
  fmt::print("{}\n  {} changed, of {} that {} selected, {}\n", edit.output.string(), count_text(report.changed.size(), "marker"),
             report.selected, report.selected == 1 ? "is" : "are", bytes_text(report.bytes_written));
  for (const std::string& warning : report.warnings) fmt::print("  warning    {}\n", warning);
  return kDone;
}

}  // namespace qmill::app
