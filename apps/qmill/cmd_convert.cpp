// convert and plan.
#include "commands.h"
#include "convert_flags.h"
#include "help.h"
#include "json_output.h"
#include "progress.h"
#include "summary.h"

#include <qmill/core/process.h>
#include <qmill/error.h>

#include <fmt/format.h>

#include <fstream>

namespace qmill::app {
namespace {

enum class Verbosity { debug, verbose, normal, minimal };

Verbosity verbosity(const Arguments& arguments) {
  const std::string level = arguments.choice("verbose", {"DEBUG", "VERBOSE", "NORMAL", "MINIMAL"});
  return level == "DEBUG"     ? Verbosity::debug
         : level == "VERBOSE" ? Verbosity::verbose
         : level == "NORMAL"  ? Verbosity::normal
                              : Verbosity::minimal;
}

void log_decisions(const Plan& plan, Verbosity level) {
  if (level > Verbosity::verbose) return;
  for (const Decision& decision : plan.decisions)
    if (decision.is_layer || level == Verbosity::debug) fmt::print(stderr, "{}", decision_line(decision));
}

void log_refused_plugins(const Host& host, Verbosity level) {
  if (level > Verbosity::verbose) return;
  for (const PluginCandidate& candidate : host.candidates())
    if (candidate.status == PluginCandidate::Status::refused)
      fmt::print(stderr, "qmill: plugin '{}' refused: {}\n", candidate.file.string(), candidate.reason);
}

void write_report(const std::string& file, const Json& report) {
  std::ofstream stream(file);
  stream << report.dump(2) << "\n";
  if (!stream.flush())
    throw Error(ErrorKind::io, "cannot write the report", "the converted file is complete").in(fmt::format("'{}'", file));
}

void print_plan(const Plan& plan, const ConvertOptions& options, bool as_json) {
  if (as_json)
    print_json(plan_json(plan));
  else
    fmt::print("{}", plan_text(plan, options));
}

int convert(const TensorSource& source, const Plan& plan, const ConvertOptions& options, const Arguments& arguments) {
  const Verbosity level = verbosity(arguments);
  RunHooks hooks;
  hooks.cancel = &watch_interrupts();
  ConvertReport report;
  {
    ProgressBar bar;
    if (level <= Verbosity::normal) hooks.progress = [&](const Progress& progress) { bar.update(progress); };
    report = run_plan(source, plan, options, hooks);
  }
  if (arguments.given("report")) write_report(arguments.text("report"), report_json(plan, report, options));
  if (arguments.on("json")) {
    print_json(report_json(plan, report, options));
    return kDone;
  }
  if (arguments.on("report-quality")) fmt::print("{}\n", quality_report_text(qualities(report), options.quality_threshold));
  if (level <= Verbosity::normal)
    fmt::print("{}", convert_summary(plan, report, options));
  else
    for (const std::string& warning : warnings(plan, report, options)) fmt::print(stderr, "qmill: warning: {}\n", warning);
  return kDone;
}

int run(const Words& words, const std::string& name) {
  const std::vector<std::string> dirs = plugin_dirs(words);
  const Host host({dirs.begin(), dirs.end()});
  Command command = find_command(name);
  command.flags = convert_flags(host);
  const Arguments arguments(command, words);
  if (arguments.given("help")) {
    fmt::print("{}", command_help(command, arguments.choice("help", {"common", "all"}) == "all"));
    return kDone;
  }
  const Verbosity level = verbosity(arguments);
  log_refused_plugins(host, level);
  const ConvertOptions options = convert_options(arguments, host);
  const std::unique_ptr<TensorSource> source = host.open(options.input);
  const std::string dry_run = arguments.given("dry-run") ? arguments.choice("dry-run", {"analyze", "create-template"})
                              : name == "plan"           ? "analyze"
                                                         : "";
  if (dry_run == "create-template") {
    fmt::print("{}", layer_config_template(*source));
    return kDone;
  }
  if (dry_run.empty()) check_destination(*source, options);  // before a heuristic reads everything
  const Plan plan = make_plan(host, *source, options);
  if (!dry_run.empty()) print_plan(plan, options, arguments.on("json"));
  try {
    require_selection(plan);
  } catch (Error& error) {
    throw error.in(fmt::format("'{}'", options.input.string()));
  }
  if (!dry_run.empty()) return kDone;
  log_decisions(plan, level);
  try {
    return convert(*source, plan, options, arguments);
  } catch (QualityError&) {
    throw;
  } catch (Error& error) {
    if (error.kind() == ErrorKind::numeric || error.kind() == ErrorKind::plugin) error.in(fmt::format("'{}'", options.input.string()));
    throw error;
  }
}

}  // namespace

int run_convert(const Words& words) { return run(words, "convert"); }
int run_plan(const Words& words) { return run(words, "plan"); }

}  // namespace qmill::app
