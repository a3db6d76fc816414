// convert for several models: one after the other in one process, and on after a failure.
#include "commands.h"
#include "convert_flags.h"
#include "json_output.h"
#include "progress.h"
#include "simple_command.h"
#include "summary.h"
#include "text.h"

#include <qmill/core/batch.h>
#include <qmill/core/logging.h>
#include <qmill/core/process.h>
#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill::app {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGroup = "Batch";

bool is_of_batch(const Flag& flag) { return flag.group == kGroup; }

struct Job {
  ConvertOptions options;
  bool was_found = false;  // in a folder, rather than named
};

// How one model came out.
struct Outcome {
  enum class Status { done, planned, skipped, failed };
  Status status = Status::done;
  std::string text;       // for people
  Json report = nullptr;  // as convert or plan would print it
  std::vector<std::string> warnings;
};

const char* status_name(Outcome::Status status) {
  switch (status) {
    case Outcome::Status::planned:
      return "planned";
    case Outcome::Status::skipped:
      return "skipped";
    case Outcome::Status::failed:
      return "failed";
    case Outcome::Status::done:
      break;
  }
  return "done";
}

std::vector<std::pair<fs::path, bool>> models_of(const Arguments& arguments) {
  std::vector<std::string> named = arguments.list("inputs");
  named.insert(named.end(), arguments.operands().begin(), arguments.operands().end());
  if (named.empty() == !arguments.given("directory"))
    throw Error(ErrorKind::usage,
                named.empty() ? "no model is given" : "models are named, and --directory names a folder of them; choose one",
                "qmill batch MODEL..., or qmill batch --directory DIR");
  if (!arguments.given("directory") && arguments.given("pattern")) throw Error(ErrorKind::usage, "--pattern needs --directory DIR");
  std::vector<std::pair<fs::path, bool>> models;
  for (const std::string& name : named)
    for (const fs::path& model : expand_model(name)) models.emplace_back(model, false);
  if (arguments.given("directory"))
    for (const fs::path& model : find_models(arguments.text("directory"), arguments.text("pattern"))) models.emplace_back(model, true);
  return models;
}

// Of the flags that convert has, what was given.
Words passed_on(const Arguments& arguments, const Command& command) {
  Words words;
  for (const Flag& flag : command.flags) {
    if (is_of_batch(flag) || flag.name == "dry-run" || flag.name == "json") continue;
    const Words given = arguments.words(flag.name);
    words.insert(words.end(), given.begin(), given.end());
  }
  return words;
}

fs::path output_of(const ConvertOptions& options, const Arguments& arguments) {
  if (!arguments.given("output-dir")) return options.output;
  return fs::path(arguments.text("output-dir")) / options.output.filename();
}

// Every choice is read before the first model is converted: a wrong flag ends the batch, not each model.
std::vector<Job> jobs_of(const Arguments& arguments, const Command& command, const Host& host, std::vector<std::string>& warnings) {
  LoraMapping mapping(arguments.text("lora-mapping"), arguments.text("lora-dir"));
  const bool merges_for_all = arguments.given("merge-lora") || arguments.given("merge-loras");
  Command convert = find_command("convert");
  convert.flags = convert_flags(host);
  std::vector<Job> jobs;
  std::map<fs::path, fs::path> inputs;  // by output
  for (const auto& [model, was_found] : models_of(arguments)) {
    Words words = passed_on(arguments, command);
    words.push_back("--input=" + model.string());
    const std::vector<fs::path> loras = mapping.loras_for(model);
    if (!merges_for_all)
      for (const fs::path& lora : loras) words.push_back("--merge-loras=" + lora.string());
    // A strength for all LoRAs says nothing of a model without any.
    if (!merges_for_all && loras.empty())
      std::erase_if(words,
                    [](const std::string& word) { return word.starts_with("--merge-lora-") || word.starts_with("--no-merge-lora-"); });
    Job job{convert_options(Arguments(convert, words), host), was_found};
    check_choices(host, job.options);
    for (const fs::path& lora : job.options.merge.paths)
      if (std::error_code ignored; merges_for_all && !fs::exists(lora, ignored))
        throw Error(ErrorKind::io, "there is no such file or folder").in(fmt::format("'{}'", lora.string()));
    job.options.output = output_of(job.options, arguments);
    const auto [first, is_new] = inputs.emplace(job.options.output, model);
    if (!is_new)
      throw Error(ErrorKind::usage,
                  fmt::format("'{}' and '{}' would both become '{}'", first->second.string(), model.string(), job.options.output.string()),
                  "convert them in two batches");
    jobs.push_back(std::move(job));
  }
  const std::vector<std::string> unused = mapping.unused();
  for (const std::string& key : unused) warnings.push_back(fmt::format("the LoRA mapping's '{}' matches no model", key));
  if (merges_for_all && (arguments.given("lora-mapping") || arguments.given("lora-dir")))
    warnings.emplace_back("--merge-lora is for all models: the LoRA mapping is not used");
  return jobs;
}

// Files that this program wrote lie beside their sources.
bool is_made_by_qmill(const TensorSource& source) { return source.metadata().contains("qmill.quantizer"); }

std::string done_text(const Plan& plan, const ConvertReport& report) {
  const std::vector<LayerQuality> layers = qualities(report);
  const QualitySummary summary = summarize(layers, plan.options.quality_threshold);
  const std::string quality = plan.options.run.measures ? "SQNR " + decibel_text(summary.mean_sqnr_db) : "not measured";
  return fmt::format("{}, {} -> {}, {}, {}, {:.2f} s", plan.options.output.string(), bytes_text(report.bytes_read),
                     bytes_text(report.bytes_written), count_text(plan.count(Action::quantize), "layer"),
                     quality, report.seconds);
}

void check_output_folder(const Arguments& arguments) {
  const fs::path folder = arguments.text("output-dir");
  std::error_code ignored;
  if (fs::exists(folder, ignored) && !fs::is_directory(folder, ignored))
    throw Error(ErrorKind::usage, "it is a file, expected a folder", "choose another --output-dir")
        .in(fmt::format("'{}'", folder.string()));
}

void make_output_folder(const Arguments& arguments) {
  if (!arguments.given("output-dir")) return;
  std::error_code code;
  fs::create_directories(arguments.text("output-dir"), code);
  if (code)
    throw Error(ErrorKind::io, fmt::format("cannot make the folder: {}", code.message()))
        .in(fmt::format("'{}'", arguments.text("output-dir")));
}

Outcome convert_one(const Job& job, const Host& host, const Arguments& arguments, bool is_dry) {
  const ConvertOptions& options = job.options;
  Outcome outcome;
  Conversion conversion(host, options);
  if (job.was_found && is_made_by_qmill(conversion.source())) {
    outcome.status = Outcome::Status::skipped;
    outcome.text = "qmill made it";
    return outcome;
  }
  if (!is_dry) conversion.check_destination();  // before a heuristic reads everything
  const Plan& plan = conversion.plan(&watch_interrupts());
  conversion.require_selection();
  if (is_dry) {
    outcome.status = Outcome::Status::planned;
    outcome.text = fmt::format("{}, {}, {}", options.output.string(), bytes_text(plan.output.bytes()),
                               count_text(plan.count(Action::quantize), "layer"));
    outcome.report = spoken(plan.json());
    outcome.warnings = plan.warnings;
    return outcome;
  }
  make_output_folder(arguments);
  const ConvertReport report = run_with_progress(conversion);
  outcome.text = done_text(plan, report);
  outcome.report = spoken(report_json(plan, report));
  outcome.warnings = warnings(plan, report);
  return outcome;
}

// Whatever goes wrong is this model's; only an interruption is everybody's.
Outcome try_one(const Job& job, const Host& host, const Arguments& arguments, bool is_dry) {
  Outcome failure;
  failure.status = Outcome::Status::failed;
  try {
    return convert_one(job, host, arguments, is_dry);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::cancelled) throw;
    failure.text = as_flags(error.what());
  } catch (const std::bad_alloc&) {
    failure.text = "out of memory";
  } catch (const std::exception& error) {
    failure.text = fmt::format("unexpected: {}", error.what());
  }
  return failure;
}

// "2 done, 1 failed"
std::string counts_text(const std::map<Outcome::Status, std::size_t>& counts) {
  std::string text;
  for (const auto& [status, count] : counts) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, status_name(status));
  return text;
}

Json outcome_json(const Job& job, const Outcome& outcome) {
  const bool failed = outcome.status == Outcome::Status::failed;
  return {{"input", job.options.input.string()},
          {"output", job.options.output.string()},
          {"status", status_name(outcome.status)},
          {"error", failed ? Json(outcome.text) : Json(nullptr)},
          {"report", outcome.report}};
}

// -o in any spelling: each model has its own output.
void refuse_output(const Words& words) {
  for (const std::string& word : words)
    if (word.starts_with("--output=") || word == "--output" || (word.starts_with("-o") && !word.starts_with("--")))
      throw Error(ErrorKind::usage, fmt::format("batch does not take '{}': every model has an output of its own", word),
                  "choose their folder with --output-dir");
}

}  // namespace

std::vector<Flag> batch_flags(const Host& host) {
  std::vector<Flag> flags;
  const auto add = [&](std::string name, std::string value, std::string initial, std::string help, char letter = 0) -> Flag& {
    flags.push_back({std::move(name), std::move(value), std::move(initial), std::move(help), kGroup, letter, true});
    flags.back().topics = {"batch"};
    return flags.back();
  };
  add("inputs", "MODEL", "", "a model, or several with * and ?; the same as naming it without a flag", 'i').is_list = true;
  add("directory", "DIR", "", "convert the models of this folder, except those that qmill made", 'd');
  add("pattern", "GLOB", "*.safetensors", "which files of the folder");
  add("output-dir", "DIR", "", "folder of the outputs, created if needed; default: each beside its input");
  add("lora-mapping", "FILE", "", "JSON: which LoRAs go with which model (docs/commands.md)");
  add("lora-dir", "DIR", "", "folder of LoRAs: mapped names, <model>.safetensors and <model>_lora.safetensors");
  add("dry-run", "analyze", "", "write nothing: print what would be written").optional_words = {"analyze", "create-template"};
  add("dry-run-batch", "", "off", "the old name of --dry-run");
  add("yes", "", "off", "older flag that changes nothing: batch asks no questions", 'y');
  for (Flag& flag : convert_flags(host))
    if (flag.name != "input" && flag.name != "output" && flag.name != "dry-run" && flag.name != "report" && flag.name != "report-quality")
      flags.push_back(std::move(flag));
  return flags;
}

int run_batch(const Words& words) {
  refuse_output(words);
  const Host host = make_host(plugin_dirs(words));
  Command command = find_command("batch");
  command.flags = batch_flags(host);
  const Arguments arguments(command, words);
  if (shows_help(command, arguments)) return kDone;
  set_verbosity(arguments);
  if (arguments.given("dry-run") && arguments.choice("dry-run", {"analyze", "create-template"}) == "create-template")
    throw Error(ErrorKind::usage, "batch writes no templates: each model has its own layers", "qmill MODEL --dry-run create-template");
  check_output_folder(arguments);
  const bool is_dry = arguments.given("dry-run") || arguments.on("dry-run-batch");
  std::vector<std::string> remarks;
  const std::vector<Job> jobs = jobs_of(arguments, command, host, remarks);
  for (const std::string& remark : remarks) say(fmt::format("qmill: warning: {}\n", remark));
  Json models = Json::array();
  std::map<Outcome::Status, std::size_t> counts;
  const bool as_json = arguments.on("json");
  for (const Job& job : jobs) {
    const Outcome outcome = try_one(job, host, arguments, is_dry);
    ++counts[outcome.status];
    models.push_back(outcome_json(job, outcome));
    if (as_json) continue;
    fmt::print("{:<7}  {}: {}\n", status_name(outcome.status), job.options.input.string(), outcome.text);
    for (const std::string& warning : outcome.warnings)
      say(fmt::format("qmill: warning: '{}': {}\n", job.options.input.string(), as_flags(warning)));
    std::fflush(stdout);
  }
  const std::size_t failed = counts.contains(Outcome::Status::failed) ? counts.at(Outcome::Status::failed) : 0;
  if (as_json)
    print_json({{"models", models}, {"failed", failed}});
  else
    fmt::print("{}\n", counts_text(counts));
  return failed == 0 ? kDone : kFailed;
}

}  // namespace qmill::app
