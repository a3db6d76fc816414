#include "commands.h"
#include "json_output.h"
#include "simple_command.h"
#include "text.h"

#include <qmill/core/json.h>
#include <qmill/core/process.h>
#include <qmill/error.h>

#include <fmt/format.h>

namespace qmill::app {
namespace {

std::string verdict_text(const ReaderVerdict& verdict) {
  if (verdict.loads == true) return verdict.since.empty() ? "loads it" : fmt::format("loads it, from {}", verdict.since);
  return fmt::format("{}: {}", verdict.loads ? "does not load it" : "not known", as_flags(verdict.because));
}

void print_text(const std::string& file, const VerifyReport& report) {
  fmt::print("{}\n  {}, {} marked as quantized\n", file, count_text(report.tensors, "tensor"), count_text(report.layers, "layer"));
  for (const ReaderVerdict& verdict : report.readers) fmt::print("  {:<21} {}\n", verdict.reader, verdict_text(verdict));
  std::map<std::string, std::size_t> shown;
  for (const Finding& finding : report.findings)
    if (++shown[finding.rule] <= kMaxLines)
      fmt::print("  {:<6}  {}{}: {}\n", finding.is_error() ? "error" : "remark", finding.rule,
                 finding.tensor.empty() ? "" : fmt::format(", '{}'", finding.tensor), as_flags(finding.text));
  for (const auto& [rule, count] : shown)
    if (count > kMaxLines) fmt::print("  and {} more of {} (--json has all)\n", count - kMaxLines, rule);
}

}  // namespace

int run_verify(const Words& words) {
  const SimpleCommand command("verify", words);
  if (command.shows_help()) return kDone;
  const Arguments& arguments = command.arguments;
  if (arguments.operands().empty()) throw Error(ErrorKind::usage, "no file is given", "qmill verify FILE");
  const std::string& file = arguments.operands().front();
  const Host host = command.host();
  const std::unique_ptr<TensorSource> source = host.open(file);
  const VerifyReport report = verify_model(host, *source, {.read_data = arguments.on("data")}, &watch_interrupts());
  if (arguments.on("json"))
    print_json(spoken(verify_json(file, report)));
  else
    print_text(file, report);
  return report.loads() ? kDone : kFailed;
}

}  // namespace qmill::app
