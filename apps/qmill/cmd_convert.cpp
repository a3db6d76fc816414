// convert and plan.
#include "commands.h"
#include "convert_flags.h"
#include "json_output.h"
#include "progress.h"
#include "shared_run.h"
#include "simple_command.h"
#include "summary.h"
#include "text.h"

#include <qmill/core/logging.h>
#include <qmill/core/process.h>
#include <qmill/core/text_output.h>
#include <qmill/error.h>

#include <fmt/format.h>

#include <cstdio>

namespace qmill::app {
namespace {

void log_decisions(const Plan& plan) {
  if (!logs(LogLevel::verbose)) return;
  for (const Decision& decision : plan.decisions) log(decision.is_layer ? LogLevel::verbose : LogLevel::debug, decision_line(decision));
}

void log_refused_plugins(const Host& host) {
  if (!logs(LogLevel::verbose)) return;
  for (const PluginCandidate& candidate : host.candidates())
    if (candidate.status == PluginCandidate::Status::refused)
      log(LogLevel::verbose, fmt::format("plugin '{}' refused: {}", candidate.file.string(), candidate.reason));
}

void check_report(const std::string& file, const Plan& plan, const std::vector<std::filesystem::path>& inputs) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  std::vector<fs::path> outputs = plan.output_files();
  outputs.push_back(plan.options.output);
  for (const fs::path& output : outputs)
    if (fs::weakly_canonical(file, ignored) == fs::weakly_canonical(output, ignored))
      throw Error(ErrorKind::usage, fmt::format("--report is the same file as an output: '{}'", file), "choose another name for the report");
  check_text_output(file, inputs, plan.options.run.overwrite);
}

void write_report(const std::string& file, const Json& report, const ConvertOptions& options,
                  const std::vector<std::filesystem::path>& files) {
  try {
    publish_text(file, json_text(report), files, options.run.overwrite);
  } catch (const Error& error) {
    Error located(error.kind(), fmt::format("cannot write the report: {}", error.message()), "the converted file is complete");
    throw located.in(fmt::format("'{}'", file));
  }
}

// Printed, or with --output in a file of its own.
int make_template(const Conversion& conversion, bool has_output) {
  const ConvertOptions& options = conversion.options();
  const std::string text = layer_config_template(conversion.source(), options.target.format);
  if (!has_output) {
    fmt::print("{}", text);
    return kDone;
  }
  publish_text(options.output, text, conversion.input_files(), options.run.overwrite);
  return kDone;
}

int convert(Conversion& conversion, const Arguments& arguments) {
  const Plan& plan = conversion.plan();
  const ConvertOptions& options = conversion.options();
  std::vector<std::filesystem::path> files = conversion.input_files();
  files.push_back(options.output);
  for (const std::filesystem::path& file : plan.output_files()) files.push_back(file);
  if (arguments.given("report")) check_report(arguments.text("report"), plan, files);
  log_decisions(plan);
  const ConvertReport report = run_with_progress(conversion);
  if (!reports()) return kDone;
  if (arguments.given("report")) write_report(arguments.text("report"), spoken(report_json(plan, report)), options, files);
  if (arguments.on("json")) {
    print_json(spoken(report_json(plan, report)));
    return kDone;
  }
  print_is_optional();
  if (arguments.on("report-quality"))
    std::fputs((quality_report_text(qualities(report), options.quality_threshold) + "\n").c_str(), stdout);
  if (logs(LogLevel::normal))
    std::fputs(convert_summary(plan, report).c_str(), stdout);
  else
    for (const std::string& warning : warnings(plan, report)) log(LogLevel::minimal, "warning: " + as_flags(warning));
  return kDone;
}

int run(const Words& words, const std::string& name) {
  const Host host = make_host(plugin_dirs(words));
  Command command = find_command(name);
  command.flags = convert_flags(host);
  const Arguments arguments(command, words);
  if (shows_help(command, arguments)) return kDone;
  set_verbosity(arguments);
  log_refused_plugins(host);
  ConvertOptions options = convert_options(arguments, host);
  if (name == "plan" || arguments.given("dry-run"))
    for (const char* flag : {"report", "report-quality", "fail-below"})
      if (arguments.given(flag)) options.remarks.push_back(fmt::format("--{} changes nothing: nothing is converted", flag));
  if (arguments.on("report-quality") && !options.run.measures)
    throw Error(ErrorKind::usage, "--report-quality prints figures, and --quality off measures none", "leave one of them out");
  Conversion conversion(host, std::move(options));
  const std::string dry_run = arguments.given("dry-run") ? arguments.choice("dry-run", {"analyze", "create-template"})
                              : name == "plan"           ? "analyze"
                                                         : "";
  if (dry_run == "create-template") return make_template(conversion, arguments.given("output") || arguments.operands().size() > 1);
  if (dry_run.empty()) conversion.check_destination();  // before a heuristic reads everything
  const Plan& plan = conversion.plan(&watch_interrupts());
  const bool as_json = arguments.on("json");
  if (!dry_run.empty() && !as_json) fmt::print("{}", plan_text(plan));  // shows why nothing is selected
  conversion.require_selection();
  if (!dry_run.empty() && as_json) print_json(spoken(plan.json()));
  return dry_run.empty() ? convert(conversion, arguments) : kDone;
}

}  // namespace

int run_convert(const Words& words) { return run(words, "convert"); }
int run_plan(const Words& words) { return run(words, "plan"); }

}  // namespace qmill::app
