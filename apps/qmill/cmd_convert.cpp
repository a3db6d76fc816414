// convert and plan.
#include "commands.h"
#include "convert_flags.h"
#include "convert_model.h"
#include "json_output.h"
#include "progress.h"
#include "simple_command.h"
#include "summary.h"

#include <qmill/core/decoded_source.h>
#include <qmill/core/logging.h>
#include <qmill/core/process.h>
#include <qmill/core/text_output.h>
#include <qmill/error.h>

#include <fmt/format.h>

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

// What a report must not replace: all that the run reads, and what it writes.
std::vector<std::filesystem::path> files_of_run(const TensorSource& source, const ConvertOptions& options) {
  std::vector<std::filesystem::path> files = source.files();
  files.insert(files.end(), {options.input, options.output, options.calibration.data, options.calibration.lora});
  files.insert(files.end(), options.merge.paths.begin(), options.merge.paths.end());
  std::erase_if(files, [](const std::filesystem::path& file) { return file.empty(); });
  return files;
}

void write_report(const std::string& file, const Json& report, const TensorSource& source, const ConvertOptions& options) {
  try {
    publish_text(file, report.dump(2) + "\n", files_of_run(source, options), options.run.overwrite);
  } catch (const Error& error) {
    Error located(error.kind(), fmt::format("cannot write the report: {}", error.message()), "the converted file is complete");
    throw located.in(fmt::format("'{}'", file));
  }
}

void print_plan(const Plan& plan, const ConvertOptions& options, bool as_json) {
  if (as_json)
    print_json(plan_json(plan));
  else
    fmt::print("{}", plan_text(plan, options));
}

// Printed, or with --output in a file of its own.
int make_template(const TensorSource& source, const ConvertOptions& options, bool has_output) {
  const std::string text = layer_config_template(source);
  if (!has_output) {
    fmt::print("{}", text);
    return kDone;
  }
  std::vector<std::filesystem::path> inputs = source.files();
  inputs.push_back(options.input);
  publish_text(options.output, text, inputs, options.run.overwrite);
  return kDone;
}

int convert(const PlannedModel& model, const ConvertOptions& options, const Arguments& arguments) {
  const Plan& plan = model.plan;
  RunHooks hooks;
  hooks.cancel = &watch_interrupts();
  ConvertReport report;
  {
    ProgressBar bar;
    if (logs(LogLevel::normal)) hooks.progress = [&](const Progress& progress) { bar.update(progress); };
    report = run_model(model, options, hooks);
  }
  if (arguments.given("report")) write_report(arguments.text("report"), report_json(plan, report, options), *model.source, options);
  if (arguments.on("json")) {
    print_json(report_json(plan, report, options));
    return kDone;
  }
  if (arguments.on("report-quality")) fmt::print("{}\n", quality_report_text(qualities(report), options.quality_threshold));
  if (logs(LogLevel::normal))
    fmt::print("{}", convert_summary(plan, report, options));
  else
    for (const std::string& warning : warnings(plan, report, options)) log(LogLevel::minimal, "warning: " + warning);
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
  const ConvertOptions options = convert_options(arguments, host);
  std::unique_ptr<TensorSource> source = open_source(host, options);
  const std::string dry_run = arguments.given("dry-run") ? arguments.choice("dry-run", {"analyze", "create-template"})
                              : name == "plan"           ? "analyze"
                                                         : "";
  if (dry_run == "create-template") return make_template(*source, options, arguments.given("output") || arguments.operands().size() > 1);
  const PlannedModel model = plan_model(host, std::move(source), options, dry_run.empty());
  if (!dry_run.empty()) print_plan(model.plan, options, arguments.on("json"));
  require_layers(model, options);
  if (!dry_run.empty()) return kDone;
  if (arguments.given("report")) check_text_output(arguments.text("report"), files_of_run(*model.source, options), options.run.overwrite);
  log_decisions(model.plan);
  return convert(model, options, arguments);
}

}  // namespace

int run_convert(const Words& words) { return run(words, "convert"); }
int run_plan(const Words& words) { return run(words, "plan"); }

}  // namespace qmill::app
