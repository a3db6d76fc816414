// Every call of the operating system that a conversion makes for its files fails once, in every way that makes sense. The run succeeds
// with the expected bytes, or says the cause and the file, and leaves only what another run can go on with.
//
// In an ordinary test run every few calls of a kind; all of them with QMILL_TEST_FAULTS=all.
#include "expect_error.h"
#include "fault_shim.h"
#include "model_file.h"
#include "temp_dir.h"
#include "test_host.h"

#include <qmill/core/convert.h>
#include <qmill/core/logging.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>

namespace qmill {
namespace {

namespace fs = std::filesystem;

using testing::Call;
using testing::Fault;
using testing::InjectedFaults;
using testing::NamedTensor;
using testing::random_weight;
using testing::read_bytes;
using testing::TempDir;
using testing::write_bytes;
using testing::write_model;

using Files = std::map<std::string, std::string>;  // contents by name

constexpr std::int64_t kColumns = 256;

std::vector<NamedTensor> model() {
  std::vector<NamedTensor> tensors;
  for (const char* layer : {"a", "b", "c"}) {
    tensors.push_back({std::string(layer) + ".weight", random_weight(16, kColumns, at::kFloat, tensors.size())});
    tensors.push_back({std::string(layer) + ".bias", random_weight(1, 16, at::kFloat, tensors.size())[0]});
  }
  tensors.push_back({"norm.weight", random_weight(1, 1024, at::kHalf, 9)[0]});  // copied
  return tensors;
}

Files files_in(const fs::path& folder) {
  Files files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) files[entry.path().filename()] = read_bytes(entry.path());
  return files;
}

// A conversion, the files in its folder before it, and those after it when nothing fails.
class Scenario {
 public:
  Scenario() {
    fs::create_directory(dir_ / "in");
    fs::create_directory(dir_ / "out");
    write_model(dir_ / "in/model.safetensors", model());
    options_.input = dir_ / "in/model.safetensors";
    options_.output = dir_ / "out/model.safetensors";
    options_.target.quantizer = "rtn";
    options_.run.threads = 1;
  }
  ~Scenario() { set_log_sink({}); }

  void use_calibration() {
    write_model(dir_ / "in/rows.safetensors", {{"a.input", random_weight(300, kColumns, at::kFloat, 20)},
                                               {"b.input", random_weight(300, kColumns, at::kFloat, 21)}});
    options_.calibration.data = dir_ / "in/rows.safetensors";
    options_.target.quantizer = "gptq";
  }
  void use_shards() { options_.written.max_shard_bytes = 8'000; }

  // What is there before each run.
  void put(const std::string& name, std::string contents) { before_[name] = std::move(contents); }
  // What this system cannot do, in all runs.
  void never(Call call, int code) { standing_.push_back({call, 1, code, true}); }
  // Every run is interrupted when two layers are stored.
  void interrupt() { is_interrupted_ = true; }

  // Contents of the folder that an interrupted run leaves.
  Files interrupted() {
    reset();
    EXPECT_THROW(run(true), Error);
    return files_in(out());
  }

  // Files of the output.
  Files result() {
    reset();
    run(false);
    return files_in(out());
  }

  // Runs it with each fault. Returns how many were met.
  std::size_t inject();
  // One run with these. Returns whether it came to all of them.
  bool check(const std::vector<Fault>& faults);

  fs::path out() const { return dir_ / "out"; }
  ConvertOptions& options() { return options_; }
  const std::string& error() const { return error_; }
  const std::string& said() const { return said_; }  // warnings of the last run
  // What the run with faults has left in a file.
  const std::string& left(const std::string& name) const { return left_.at(name); }
  bool may_be_published = false;    // some of the output's files were, before the run
  bool may_stay_published = false;  // what cannot be taken back

 private:
  void reset() {
    fs::remove_all(out());
    fs::create_directory(out());
    for (const auto& [name, contents] : before_) write_bytes(out() / name, contents);
  }

  void run(bool interrupts) {
    const auto source = testing::host().open(options_.input);
    const Plan plan = make_plan(testing::host(), *source, options_);
    std::atomic<bool> cancel = false;
    run_plan(*source, plan, {[&](const Progress& progress) { cancel = interrupts && progress.layers_done >= 2; }, &cancel});
  }

  bool is_told(const std::string& name) const { return said_.find(name + "'") != std::string::npos; }
  void expect_complete();
  void expect_nothing_new();
  void expect_cause(const std::vector<Fault>& faults);

  TempDir dir_;
  ConvertOptions options_;
  Files before_, expected_, left_;
  std::vector<Fault> standing_;
  bool is_interrupted_ = false;
  std::string said_, error_;  // of the last run
};

void Scenario::expect_complete() {
  Files found = files_in(out());
  for (const auto& [name, contents] : expected_) {
    EXPECT_TRUE(found[name] == contents) << name << " has other bytes, or is missing";
    found.erase(name);
  }
  for (const auto& [name, contents] : found) EXPECT_TRUE(is_told(name)) << name << " is left, said was: " << said_;
}

// After an error.
void Scenario::expect_nothing_new() {
  const bool keeps_part = error_.find("keeps what is finished") != std::string::npos;
  const Files found = files_in(out());
  left_ = found;
  for (const auto& [name, contents] : expected_) {
    if (may_stay_published && is_told(name)) continue;
    const auto now = found.find(name);
    const auto old = before_.find(name);
    if (now != found.end() && may_be_published)
      EXPECT_TRUE(now->second == contents) << name;
    else if (now != found.end() && old == before_.end())
      ADD_FAILURE() << name << " is new";
    else if (now != found.end())
      EXPECT_TRUE(now->second == old->second) << name << " has other bytes";
    else if (old != before_.end() && !may_be_published)
      ADD_FAILURE() << name << " is gone";
  }
  for (const auto& [name, contents] : found) {
    if (expected_.contains(name)) continue;
    const bool is_part = name.ends_with(".qmill-part") || name.ends_with(".qmill-journal");
    EXPECT_TRUE((is_part && (keeps_part || before_.contains(name) || may_be_published)) || is_told(name))
        << name << " is left, said was: " << said_ << error_;
  }
}

std::string cause_of(const Fault& fault) {
  if (fault.code == 0) return "it does less";
  return fault.call == Call::lock && fault.code == EWOULDBLOCK ? "another run writes it now" : std::generic_category().message(fault.code);
}

std::string text_of(const std::vector<Fault>& faults) {
  std::string text;
  for (const Fault& fault : faults)
    text += std::string(name_of(fault.call)) + " " + std::to_string(fault.number) + (fault.lasts ? " and later: " : ": ") +
            cause_of(fault) + "; ";
  return text;
}

void Scenario::expect_cause(const std::vector<Fault>& faults) {
  EXPECT_NE(error_.find(dir_.path().string()), std::string::npos) << "no file in: " << error_;
  if (is_interrupted_) return;
  EXPECT_TRUE(std::any_of(faults.begin(), faults.end(), [&](const Fault& fault) {
    return fault.code != EINTR && error_.find(cause_of(fault)) != std::string::npos;
  })) << "no cause in: " << error_;
}

bool Scenario::check(const std::vector<Fault>& faults) {
  const ::testing::ScopedTrace trace(__FILE__, __LINE__, text_of(faults));
  if (expected_.empty()) {
    Scenario whole;
    whole.options_.target = options_.target;
    whole.options_.written = options_.written;
    whole.options_.calibration = options_.calibration;
    expected_ = whole.result();
  }
  said_.clear(), error_.clear();
  set_log_sink([this](LogLevel level, std::string_view text) {
    if (level == LogLevel::minimal) said_ += std::string(text) + "\n";
  });
  reset();
  bool are_met = false;
  {
    std::vector<Fault> all = faults;
    all.insert(all.end(), standing_.begin(), standing_.end());
    const InjectedFaults injected(dir_.path(), std::move(all));
    try {
      run(is_interrupted_);
    } catch (const Error& error) {
      error_ = error.what();
      EXPECT_TRUE(error.kind() == ErrorKind::io || (is_interrupted_ && error.kind() == ErrorKind::cancelled)) << error_;
    }
    are_met = std::all_of(faults.begin(), faults.end(), [&](const Fault& fault) { return injected.met(fault); });
  }
  if (error_.empty()) {
    expect_complete();
    return are_met;
  }
  const bool is_signal = faults.size() == 1 && faults[0].code == EINTR;
  EXPECT_FALSE(is_signal && !is_interrupted_) << "not tried again: " << error_;
  expect_cause(faults);
  expect_nothing_new();
  // The next run, in which nothing fails.
  const bool resumes = options_.run.resume;
  options_.run.resume = true;
  try {
    const InjectedFaults none(dir_.path(), standing_);
    run(false);
  } catch (const Error& error) {
    ADD_FAILURE() << "the next run: " << error.what() << "\nafter: " << error_;
  }
  options_.run.resume = resumes;
  expect_complete();
  return are_met;
}

struct Ways {
  Call call;
  std::vector<int> codes;  // 0: short
  std::vector<int> lasting;
};

const std::vector<Ways>& ways() {
  static const std::vector<Ways> ways = {
      {Call::open, {EACCES, EMFILE, EIO, EINTR, ENOSPC}, {EMFILE}},
      {Call::read, {EIO, EINTR, 0}, {EIO}},
      {Call::write, {EIO, ENOSPC, EDQUOT, EINTR, EFBIG, 0}, {ENOSPC, EIO, 0}},
      {Call::sync, {EIO, ENOSPC, EDQUOT, EINTR}, {EIO}},
      {Call::rename, {EIO, EACCES, EPERM, ENOSPC, EROFS}, {}},
      {Call::exchange, {EIO, EACCES, EPERM, ENOSPC, EINVAL, ENOSYS}, {EINVAL, ENOSYS}},
      {Call::truncate, {EIO, EPERM, EINTR}, {EIO}},
      {Call::reserve, {ENOSPC, EDQUOT, EIO, EFBIG, EINTR, EOPNOTSUPP, EINVAL}, {ENOSPC, EOPNOTSUPP}},
      {Call::copy, {EIO, ENOSPC, EDQUOT, EXDEV, EPERM, EINVAL, ENOSYS, EINTR, 0}, {ENOSPC, EXDEV, 0}},
      {Call::lock, {EWOULDBLOCK, EINTR, ENOLCK, EIO}, {ENOLCK}},
      {Call::link, {EIO, EPERM, EMLINK, EOPNOTSUPP, ENOSPC}, {}},
      {Call::unlink, {EIO, EACCES, EROFS}, {EIO}},
      {Call::mode, {EPERM, EIO}, {EPERM}},
  };
  return ways;
}

std::size_t Scenario::inject() {
  std::map<Call, std::uint64_t> calls;
  check({});
  reset();
  {
    const InjectedFaults none(dir_.path(), standing_);
    try {
      run(is_interrupted_);
    } catch (const Error& error) {
      EXPECT_TRUE(is_interrupted_) << error.what();
    }
    for (const Call call : testing::kCalls) calls[call] = none.calls(call);
  }
  const char* chosen = std::getenv("QMILL_TEST_FAULTS");
  const bool all = chosen != nullptr && std::string_view(chosen) == "all";
  constexpr std::uint64_t kMost = 12;  // calls of a kind
  std::size_t count = 0;
  for (const Ways& way : ways()) {
    const bool stands = std::any_of(standing_.begin(), standing_.end(), [&](const Fault& fault) { return fault.call == way.call; });
    if (stands) continue;
    const std::uint64_t step = all ? 1 : (calls[way.call] + kMost - 1) / kMost;
    for (std::uint64_t number = 1; number <= calls[way.call]; number += step) {
      for (const int code : way.codes) count += check({{way.call, number, code, false}});
      for (const int code : way.lasting) count += check({{way.call, number, code, true}});
    }
    if (calls[way.call] != 0)
      std::printf("  %s: %llu calls\n", std::string(name_of(way.call)).c_str(), static_cast<unsigned long long>(calls[way.call]));
  }
  std::printf("%zu faults\n", count);
  return count;
}

TEST(Faults, OfAConversion) { EXPECT_GE(Scenario().inject(), 100u); }

TEST(Faults, OfOneThatReplacesAFile) {
  Scenario scenario;
  scenario.put("model.safetensors", "old");
  scenario.options().run.overwrite = true;
  EXPECT_GE(scenario.inject(), 100u);
}

TEST(Faults, OfGptqWithACalibrationFile) {
  Scenario scenario;
  scenario.use_calibration();
  EXPECT_GE(scenario.inject(), 100u);
}

TEST(Faults, OfShards) {
  Scenario scenario;
  scenario.use_shards();
  EXPECT_GE(scenario.inject(), 200u);
}

TEST(Faults, OfShardsThatReplaceOthers) {
  Scenario scenario;
  scenario.use_shards();
  for (const auto& [name, contents] : scenario.result()) scenario.put(name, "old " + name);
  scenario.options().run.overwrite = true;
  EXPECT_GE(scenario.inject(), 200u);
}

TEST(Faults, OfARunThatIsInterrupted) {
  for (const bool shards : {false, true}) {
    Scenario scenario;
    if (shards) scenario.use_shards();
    scenario.interrupt();
    EXPECT_GE(scenario.inject(), 100u);
  }
}

TEST(Faults, OfARunThatGoesOn) {
  for (const bool shards : {false, true}) {
    Scenario scenario;
    if (shards) scenario.use_shards();
    for (const auto& [name, contents] : scenario.interrupted()) scenario.put(name, contents);
    scenario.options().run.resume = true;
    EXPECT_GE(scenario.inject(), 100u);
  }
}

// As a run leaves it that was killed between two names.
TEST(Faults, OfARunThatGoesOnPublishing) {
  Scenario scenario;
  scenario.use_shards();
  const Files result = scenario.result();
  const std::string first = result.begin()->first;
  for (const auto& [name, contents] : scenario.interrupted()) {
    if (name.ends_with(".qmill-journal"))
      scenario.put(name, contents + "{\"publishing\":true}\n");
    else if (name != first + ".qmill-part")
      scenario.put(name, contents);
  }
  scenario.put(first, result.at(first));
  scenario.options().run.resume = true;
  scenario.may_be_published = true;
  EXPECT_GE(scenario.inject(), 100u);
}

TEST(Faults, OfARunThatKeepsNoPart) {
  for (const bool shards : {false, true}) {
    Scenario scenario;
    if (shards) scenario.use_shards();
    scenario.options().run.keep_part = false;
    EXPECT_GE(scenario.inject(), 100u);
  }
}

// Where the system has no renameat2, then where it has no links either.
TEST(Faults, OfASystemThatKnowsLess) {
  for (const bool has_links : {true, false}) {
    Scenario scenario;
    scenario.never(Call::exchange, ENOSYS);
    if (!has_links) scenario.never(Call::link, EPERM);
    EXPECT_GE(scenario.inject(), 100u);
  }
}

// --- what was found so ---

TEST(Faults, WhatCannotBeRemovedIsTold) {
  Scenario scenario;
  scenario.options().run.keep_part = false;
  EXPECT_TRUE(scenario.check({{Call::write, 2, ENOSPC, false}, {Call::unlink, 1, EACCES, false}}));
  EXPECT_NE(scenario.said().find(".part' is left: cannot remove it: Permission denied"), std::string::npos) << scenario.said();
}

TEST(Faults, AJournalThatCannotBeReadIsNoneThatIsMissing) {
  Scenario scenario;
  scenario.use_shards();
  for (const auto& [name, contents] : scenario.interrupted()) scenario.put(name, contents);
  scenario.options().run.resume = true;
  std::size_t refused = 0;
  for (std::uint64_t number = 1; number <= 6; ++number) {
    scenario.check({{Call::open, number, EACCES, false}});
    refused += scenario.error().find("model.safetensors.qmill-journal': cannot open it: Permission denied") != std::string::npos;
  }
  EXPECT_GE(refused, 2u);
}

// Shards get their names after a line in the journal. When that was cut short, the run ends, which writes the journal once more.
TEST(Faults, AJournalThatWasWrittenInPartIsWrittenAgain) {
  Scenario scenario;
  scenario.use_shards();
  std::size_t met = 0;
  for (std::uint64_t number = 1; number <= 20; ++number)
    met += scenario.check({{Call::write, number, 0, false}, {Call::write, number + 1, ENOSPC, false}});
  EXPECT_GE(met, 10u);
}

TEST(Faults, AShardThatReplacedAnotherIsTakenBack) {
  Scenario scenario;
  scenario.use_shards();
  for (const auto& [name, contents] : scenario.result()) scenario.put(name, "old " + name);
  scenario.options().run.overwrite = true;
  // The first name cannot be exchanged. Were it given without that, the old file would be lost when the second fails.
  for (const int code : {EIO, EACCES, EPERM, ENOSPC})
    EXPECT_TRUE(scenario.check({{Call::exchange, 1, code, false}, {Call::rename, 2, EIO, false}}) || !scenario.error().empty());
}

TEST(Faults, AnOldFileThatCannotBeBroughtBackIsNotRemoved) {
  Scenario scenario;
  scenario.use_shards();
  const Files result = scenario.result();
  for (const auto& [name, contents] : result) scenario.put(name, "old " + name);
  scenario.options().run.overwrite = true;
  scenario.may_stay_published = true;
  EXPECT_TRUE(scenario.check({{Call::exchange, 2, EIO, true}}));
  EXPECT_NE(scenario.said().find(result.begin()->first + "' is new, though the run failed: cannot rename it: Input/output error; "
                                 "the file that it replaced is '"),
            std::string::npos)
      << scenario.said();
  EXPECT_EQ(scenario.left(result.begin()->first + ".qmill-part"), "old " + result.begin()->first);
}

}  // namespace
}  // namespace qmill
