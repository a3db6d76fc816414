// A run that ends early, and the one that goes on from there.
#include "core_support.h"

#include <qmill/core/logging.h>

#include <gmock/gmock.h>

#include <fstream>

#include <sys/stat.h>

namespace qmill {
namespace {

namespace fs = std::filesystem;

using ::testing::ElementsAre;
using testing::expect_error;
using ::testing::HasSubstr;
using testing::Job;
using testing::NamedTensor;
using testing::random_weight;
using testing::read_bytes;
using testing::write_bytes;
using testing::write_model;

constexpr std::size_t kLayers = 6;

std::vector<NamedTensor> six_layers(std::uint64_t seed = 0) {
  std::vector<NamedTensor> tensors;
  for (std::size_t i = 0; i < kLayers; ++i) {
    tensors.push_back({"l" + std::to_string(i) + ".weight", random_weight(16, 256, at::kFloat, seed + i)});
    tensors.push_back({"l" + std::to_string(i) + ".bias", random_weight(1, 16, at::kFloat, seed + i)[0]});
  }
  return tensors;
}

// A conversion that is cancelled when this many layers are stored.
class Interrupted {
 public:
  explicit Interrupted(std::size_t after = 3) : job_(six_layers()) {
    job_.options.target.quantizer = "quip";
    job_.options.run.threads = 1;
    Job whole(six_layers());
    whole.options = job_.options;
    whole.options.output = job_.dir / "whole.safetensors";
    report_ = whole.run();
    expected_ = read_bytes(whole.options.output);
    fs::remove(whole.options.output);
    expect_error(ErrorKind::cancelled, {"interrupted", "out.safetensors.qmill-part' keeps what is finished", "`resume`"},
                 [&] { interrupt(after); });
  }

  void interrupt(std::size_t after) {
    std::atomic<bool> cancel = false;
    job_.run({[&](const Progress& progress) { cancel = cancel || progress.layers_done >= after; }, &cancel});
  }

  // Layers that the run found finished.
  std::string resume() {
    std::string said;
    set_log_sink([&](LogLevel, std::string_view text) { said += text; });
    job_.options.run.resume = true;
    resumed_ = job_.run();
    set_log_sink({});
    return said;
  }

  void expect_complete() const {
    EXPECT_EQ(read_bytes(job_.options.output), expected_);
    EXPECT_THAT(job_.files(), ElementsAre("in.safetensors", "out.safetensors"));
    ASSERT_EQ(resumed_.layers.size(), report_.layers.size());
    for (std::size_t i = 0; i < report_.layers.size(); ++i) {
      const LayerReport &found = resumed_.layers[i], &expected = report_.layers[i];
      EXPECT_EQ(found.quality.name, expected.quality.name);
      EXPECT_EQ(found.quality.mse, expected.quality.mse);
      EXPECT_EQ(found.quality.sqnr_db, expected.quality.sqnr_db);
      EXPECT_EQ(found.quantizer, expected.quantizer);
      EXPECT_EQ(found.notes, expected.notes);
      EXPECT_EQ(found.statistics, expected.statistics);
    }
  }

  Job& job() { return job_; }
  fs::path part() const { return job_.dir / "out.safetensors.qmill-part"; }
  fs::path journal() const { return job_.dir / "out.safetensors.qmill-journal"; }

 private:
  Job job_;
  ConvertReport report_, resumed_;
  std::string expected_;
};

TEST(Resume, GoesOnWithWhatIsFinishedToTheSameBytes) {
  for (const std::size_t after : {1u, 3u, 6u}) {
    Interrupted run(after);
    EXPECT_THAT(run.job().files(), ElementsAre("in.safetensors", "out.safetensors.qmill-journal", "out.safetensors.qmill-part"));
    EXPECT_EQ(run.resume(), "resumed: " + std::to_string(after) + " of 6 tensors to work on are finished");
    run.expect_complete();
  }
}

TEST(Resume, MayBeInterruptedAgain) {
  Interrupted run(1);
  run.job().options.run.resume = true;
  expect_error(ErrorKind::cancelled, {"keeps what is finished"}, [&] { run.interrupt(4); });
  EXPECT_THAT(run.resume(), HasSubstr("4 of 6"));
  run.expect_complete();
}

// Its figures are those of a run that measures.
TEST(Resume, LayersThatWereNotMeasuredAreDoneAgainWhereTheyAreToBe) {
  Job job(six_layers());
  job.options.run.threads = 1;
  job.options.run.measures = false;
  std::atomic<bool> cancel = false;
  expect_error(ErrorKind::cancelled, {"keeps what is finished"}, [&] {
    job.run({[&](const Progress& progress) { cancel = progress.layers_done >= 3; }, &cancel});
  });
  job.options.run.measures = job.options.run.resume = true;
  for (const LayerReport& layer : job.run().layers) {
    EXPECT_TRUE(layer.quality.is_measured) << layer.quality.name;
    EXPECT_GT(layer.quality.sqnr_db.value_or(0), 30) << layer.quality.name;
  }
}

TEST(Resume, WithoutItAPartIsAnErrorThatSaysBothWaysOut) {
  Interrupted run;
  expect_error(ErrorKind::usage, {"out.safetensors.qmill-part' is left of a run that ended early", "`resume`", "remove it"},
               [&] { run.job().run(); });
  EXPECT_TRUE(fs::exists(run.part()));
  run.job().options.run.keep_part = false;  // this one has nothing to do with parts
  EXPECT_NO_THROW(run.job().run());
  EXPECT_TRUE(fs::exists(run.part()));
  EXPECT_TRUE(fs::exists(run.journal()));
}

TEST(Resume, WithoutAPartItIsAnOrdinaryRun) {
  Interrupted run;
  fs::remove(run.part());
  EXPECT_EQ(run.resume(), "");
  run.expect_complete();
}

TEST(Resume, WithoutAJournalEverythingIsDoneAgain) {
  Interrupted run;
  fs::remove(run.journal());
  EXPECT_THAT(run.resume(), HasSubstr("0 of 6"));
  run.expect_complete();
}

TEST(Resume, APartOfAnotherSizeIsDoneAgain) {
  for (const std::uintmax_t size : {0u, 100u, 100'000u}) {
    Interrupted run;
    fs::resize_file(run.part(), size);
    run.resume();
    run.expect_complete();
  }
}

TEST(Resume, WhatIsDamagedIsDoneAgain) {
  Interrupted run;
  std::string bytes = read_bytes(run.part());
  for (char& byte : bytes) byte = static_cast<char>(byte ^ 1);
  write_bytes(run.part(), bytes);
  EXPECT_THAT(run.resume(), HasSubstr("0 of 6"));
  run.expect_complete();
}

TEST(Resume, AJournalThatWasCutShortCountsAsFarAsItGoes) {
  const std::string whole = read_bytes(Interrupted().journal());
  for (std::size_t size = 0; size < whole.size(); size += 97) {
    Interrupted run;
    fs::resize_file(run.journal(), size);
    run.resume();
    run.expect_complete();
  }
}

TEST(Resume, OfAnotherConversionIsRefusedAndNothingIsLost) {
  Interrupted run;
  run.job().options.run.resume = true;
  run.job().options.seed = 5;
  expect_error(ErrorKind::usage, {"qmill-journal", "of another conversion", "the options, the model or the version"},
               [&] { run.job().run(); });
  run.job().options.seed = 0;
  write_model(run.job().options.input, six_layers());
  expect_error(ErrorKind::usage, {"'in.safetensors' is not the file that it was then"}, [&] { run.job().run(); });
  EXPECT_THAT(run.job().files(), ElementsAre("in.safetensors", "out.safetensors.qmill-journal", "out.safetensors.qmill-part"));
}

TEST(Resume, AJournalThatIsNoneIsRefused) {
  for (const char* text : {"\n", "{}\n", "[1]\n", "nonsense\n", "{\"qmill_journal\": \n", "\xff\xff\n", "{\"publishing\":true}\n"}) {
    Interrupted run;
    run.job().options.run.resume = true;
    write_bytes(run.journal(), text);
    expect_error(ErrorKind::input, {"qmill-journal", "it is no journal of qmill"}, [&] { run.job().run(); });
  }
}

TEST(Resume, AFirstLineOfAnotherShapeIsOfAnotherConversion) {
  const std::string deep(1'000'000, '[');  // more than a stack can hold if it were printed
  for (const std::string& value : {std::string("1"), std::string("{\"files\":\"x\"}"), deep + std::string(deep.size(), ']')}) {
    for (const std::string name : {"qmill_journal", "files"}) {
      Interrupted run;
      run.job().options.run.resume = true;
      write_bytes(run.journal(), "{\"qmill_journal\":1,\"" + name + "\":" + value + "}\n");
      expect_error(ErrorKind::usage, {"qmill-journal", "of another conversion"}, [&] { run.job().run(); });
    }
  }
}

TEST(Resume, LinesThatMakeNoSenseAreDoneAgain) {
  Interrupted original;
  const std::string whole = read_bytes(original.journal());
  const std::string head = whole.substr(0, whole.find('\n') + 1);
  for (const char* line :
       {"1", "{}", "{\"name\": 1}", "{\"name\": \"l0.weight\", \"tensors\": {}, \"report\": null}",
        "{\"name\": \"l0.weight\", \"tensors\": {\"x\": \"0\"}, \"report\": null}", "{\"name\":\"l0.weight\",\"tensors\":[],\"report\":{}}",
        "{\"name\":\"l0.weight\",\"tensors\":{\"l0.weight\":1},\"report\":null}", "[[[[[[[["}) {
    Interrupted run;
    const std::string own = read_bytes(run.journal());
    write_bytes(run.journal(), own.substr(0, own.find('\n') + 1) + line + "\n");
    EXPECT_THAT(run.resume(), HasSubstr("0 of 6")) << line;
    run.expect_complete();
  }
}

TEST(Resume, ErrorsThatAnotherRunWouldMeetAgainLeaveNothing) {
  std::vector<NamedTensor> tensors = six_layers();
  tensors.push_back({"z.weight", at::Tensor(random_weight(16, 256, at::kFloat, 1)).mul(std::numeric_limits<float>::infinity())});
  Job job(tensors);
  expect_error(ErrorKind::numeric, {"z.weight"}, [&] { job.run(); });
  EXPECT_THAT(job.files(), ElementsAre("in.safetensors"));
}

TEST(Destination, AFileThatAppearsDuringTheRunStays) {
  Interrupted run;
  Job& job = run.job();
  job.options.run.resume = true;
  expect_error(ErrorKind::io,
               {"out.safetensors", "another program made a file of this name during the run", "`overwrite`", "keeps what is finished"},
               [&] { job.run({[&](const Progress&) { write_bytes(job.options.output, "mine"); }, nullptr}); });
  EXPECT_EQ(read_bytes(job.options.output), "mine");
  job.options.run.overwrite = true;
  EXPECT_EQ(run.resume(), "resumed: 6 of 6 tensors to work on are finished");
  run.expect_complete();
}

TEST(Destination, AFileThatIsReplacedKeepsItsPermissions) {
  Job job(six_layers());
  write_bytes(job.options.output, "old");
  fs::permissions(job.options.output, fs::perms::owner_read | fs::perms::owner_write);
  job.options.run.overwrite = true;
  job.run();
  EXPECT_EQ(fs::status(job.options.output).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST(Destination, TwoRunsCannotWriteTheSameFile) {
  Job job(six_layers());
  Job other(six_layers());
  other.options.output = job.options.output;
  bool tried = false;
  job.run({[&](const Progress&) {
             if (std::exchange(tried, true)) return;
             for (const bool resume : {false, true}) {
               other.options.run.resume = resume;
               expect_error(ErrorKind::io, {"another run writes it now"}, [&] { other.run(); });
             }
           },
           nullptr});
  EXPECT_TRUE(tried);
}

TEST(Destination, LinksThatLeadNowhereAreRefused) {
  Job job(six_layers());
  fs::create_symlink(job.dir / "absent" / "x", job.options.output);
  expect_error(ErrorKind::usage, {"it is a link to", "does not exist"}, [&] { job.run(); });
  fs::remove(job.options.output);
  fs::create_symlink("out.safetensors", job.options.output);
  expect_error(ErrorKind::io, {"out.safetensors", "cannot look at it"}, [&] { job.run(); });
}

TEST(Inputs, AnInputThatChangesDuringTheRunIsAnError) {
  for (const bool in_place : {true, false}) {
    Job job(six_layers());
    expect_error(ErrorKind::input, {"in.safetensors", "another program changed it during the run"}, [&] {
      job.run({[&](const Progress& progress) {
                 if (progress.layers_done != 2) return;
                 if (in_place) {
                   std::fstream file(job.options.input, std::ios::in | std::ios::out | std::ios::binary);
                   file.seekp(-4, std::ios::end);
                   file.write("\0\0\0\0", 4);
                 } else {
                   write_model(job.dir / "other", six_layers(9));
                   fs::rename(job.dir / "other", job.options.input);
                 }
               },
               nullptr});
    });
    EXPECT_THAT(job.files(), ElementsAre("in.safetensors"));
  }
}

}  // namespace
}  // namespace qmill
