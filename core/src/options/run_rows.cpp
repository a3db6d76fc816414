#include "options/rows.h"

#include <fmt/format.h>

#include <array>

namespace qmill {
namespace {

constexpr std::array<std::pair<const char*, const char*>, 4> kSteps = {{{"hadamard", "a weight is rotated"},
                                                                        {"hessian", "sample rows are read"},
                                                                        {"ldlq", "a weight is rounded with error feedback"},
                                                                        {"ortho", "a dense transform is applied"}}};

std::string threshold_name(const char* step) { return fmt::format("stream_{}_threshold", step); }

void set_thresholds(ConvertOptions& options, const OptionValues& values) {
  std::map<std::string, std::optional<std::int64_t>> thresholds;
  for (const auto& [step, what] : kSteps)
    if (const auto limit = values.maybe_integer(threshold_name(step))) thresholds[step] = limit;
  options.run.memory.thresholds = streaming_thresholds(thresholds);
}

// Options of other tools that are about GPUs: checked, and said to change nothing here.
Apply for_gpus(std::string name) {
  return [name = std::move(name)](ConvertOptions& options, const OptionValues& values) {
    if (values.given(name)) options.remarks.push_back(fmt::format("`{}` is for GPUs: it changes nothing on a CPU", name));
  };
}

}  // namespace

void add_run_rows(Rows& rows) {
  RowGroup heuristics(rows, "Quality");
  heuristics.value("quality_threshold", "DB", 30.0, "warn about layers with an SQNR below this",
                   [](ConvertOptions& options, const OptionValues& values) { options.quality_threshold = values.real("quality_threshold"); });
  RowGroup quality(rows, "Quality", false);
  quality.optional("fail_below", "DB", 0.0, "publish nothing and exit with 3 if a layer's SQNR is below this",
                   [](ConvertOptions& options, const OptionValues& values) {
                     if (values.has("fail_below")) options.fail_below = values.real("fail_below");
                   });

  OptionRow& measures = quality.value("quality", "on|off", std::string("on"),
                                      "measure every layer on the bytes as stored; off saves that time, and the report has no figures",
                                      [](ConvertOptions& options, const OptionValues& values) {
                                        options.run.measures = values.text("quality") == "on";
                                      });
  measures.spec.choices = {"on", "off"};

  RowGroup running(rows, "Running", false);
  OptionRow& threads = running.value("threads", "N", std::int64_t{0}, "0: one per processor; the output is the same for every number",
                                     [](ConvertOptions& options, const OptionValues& values) {
                                       options.run.threads = static_cast<int>(values.integer("threads"));
                                     });
  threads.spec.at_least = 0;
  threads.spec.at_most = 1024;
  running.value("device", "DEVICE", std::string("auto"), "auto, cpu, or cuda[:N]; this build computes on the CPU",
                [](ConvertOptions& options, const OptionValues& values) { options.run.device = values.text("device"); });
  running.toggle("sync", true, "wait until the file is on the disk before it gets its name",
                 [](ConvertOptions& options, const OptionValues& values) { options.run.sync = values.on("sync"); });

  running.toggle("resume", false, "go on with what a run that ended early has left beside the output, if there is something",
                 [](ConvertOptions& options, const OptionValues& values) { options.run.resume = values.on("resume"); });
  running.toggle("keep_part", true, "leave what is finished when a run ends early, for `resume`",
                 [](ConvertOptions& options, const OptionValues& values) { options.run.keep_part = values.on("keep_part"); });

  RowGroup memory(rows, "Memory", false);
  OptionRow& mode =
      memory.value("streaming_mode", "MODE", std::string("balanced"),
                   "off: read everything first; minimal, balanced, aggressive: 512, 128, 32 MiB of weights and results at once, but at most "
                   "1/2, 1/4, 1/16 of the free memory; auto: by the size of the model. The default is what STREAMING_AGGRESSIVENESS says "
                   "(conservative, balanced, aggressive), if it is set",
                   [](ConvertOptions& options, const OptionValues& values) {
                     // Not given, the environment decides.
                     if (values.given("streaming_mode")) options.run.memory.mode = parse_streaming_mode(values.text("streaming_mode"));
                   });
  mode.spec.choices = {"off", "minimal", "balanced", "aggressive", "auto"};
  OptionRow& in_flight = memory.optional("in_flight", "MIB", std::int64_t{128},
                                         "weights and results in memory at once, instead of `streaming_mode`",
                                         [](ConvertOptions& options, const OptionValues& values) {
                                           if (const auto mebi = values.maybe_integer("in_flight"))
                                             options.run.memory.bytes_in_flight = static_cast<std::uint64_t>(*mebi) << 20;
                                         });
  in_flight.spec.at_least = 1;
  in_flight.spec.at_most = 1 << 24;
  memory.toggle("low_memory", false, "one layer at a time",
                [](ConvertOptions& options, const OptionValues& values) { options.run.memory.low_memory = values.on("low_memory"); });
  memory.toggle("no_memory_limits", false, "no limit at all",
                [](ConvertOptions& options, const OptionValues& values) { options.run.memory.no_limits = values.on("no_memory_limits"); });
  for (const auto& [step, what] : kSteps) {
    OptionRow& row = memory.optional(threshold_name(step), "N", std::int64_t{1},
                                     fmt::format("number of values above which {} in pieces, with the same result", what));
    row.spec.at_least = 1;
    row.spec.at_most = kLargestInteger;
    row.apply = set_thresholds;
  }
  memory.toggle("streaming", false, "old name of `streaming_mode balanced`").stands_for = "streaming_mode=balanced";
  memory.toggle("streaming_aggressive", false, "old name of `streaming_mode aggressive`").stands_for = "streaming_mode=aggressive";

  RowGroup gpus(rows, "For GPUs", false);
  OptionRow& compute = gpus.value("bf16_compute", "auto|on|off", std::string("auto"), "compute in BF16 on a GPU; a CPU computes in F32",
                                  [](ConvertOptions& options, const OptionValues& values) {
                                    if (values.text("bf16_compute") == "on") for_gpus("bf16_compute")(options, values);
                                  });
  compute.spec.choices = {"auto", "on", "off"};
  constexpr std::array<std::pair<const char*, std::int64_t>, 3> kThresholds = {
      {{"bf16_threshold", 1000000}, {"bf16_hadamard_threshold", 500000}, {"bf16_hessian_threshold", 1000000}}};
  for (const auto& [name, initial] : kThresholds) {
    OptionRow& row = gpus.value(name, "N", initial, "number of values from which a GPU computes in BF16", for_gpus(name));
    row.spec.at_least = 0;
    row.spec.at_most = kLargestInteger;
  }
  gpus.toggle("verbose_pinned", false, "say what goes to a GPU through pinned memory", [](ConvertOptions& options, const OptionValues& values) {
    if (values.on("verbose_pinned")) for_gpus("verbose_pinned")(options, values);
  });
}

}  // namespace qmill
