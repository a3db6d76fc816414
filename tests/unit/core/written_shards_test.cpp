// An output of several files: all of them get their names, or none.
#include "core_support.h"

#include <gmock/gmock.h>

#include <fstream>

namespace qmill {
namespace {

namespace fs = std::filesystem;

using ::testing::Contains;
using ::testing::ElementsAre;
using testing::expect_error;
using testing::Job;
using testing::NamedTensor;
using testing::random_weight;
using testing::read_bytes;
using testing::write_bytes;

constexpr std::size_t kShardedLayers = 6;
constexpr const char* kFirst = "out-00001-of-00003.safetensors";
constexpr const char* kSecond = "out-00002-of-00003.safetensors";
constexpr const char* kThird = "out-00003-of-00003.safetensors";
constexpr const char* kIndex = "out.safetensors.index.json";

std::vector<NamedTensor> layers() {
  std::vector<NamedTensor> tensors;
  for (std::size_t i = 0; i < kShardedLayers; ++i)
    tensors.push_back({"l" + std::to_string(i) + ".weight", random_weight(16, 1024, at::kFloat, i)});
  return tensors;
}

// Three files of two layers.
struct ShardedJob : Job {
  ShardedJob() : Job(layers()) {
    options.run.threads = 1;
    options.written.max_shard_bytes = 40'000;
  }
};

TEST(WrittenShards, HaveTheTensorsOfOneFile) {
  ShardedJob job;
  const ConvertReport report = job.run();
  EXPECT_THAT(job.files(), ElementsAre("in.safetensors", kFirst, kSecond, kThird, kIndex));
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    const std::uint64_t size = fs::file_size(job.made.output_files()[i]);
    EXPECT_EQ(size, job.made.output.files[i].bytes);
    EXPECT_LE(size, 40'000u);
    bytes += size;
  }
  EXPECT_EQ(report.bytes_written, bytes);

  Job whole(layers());
  whole.run();
  const auto one = testing::host().open(whole.options.output);
  const auto several = testing::host().open(job.dir / kIndex);
  ASSERT_EQ(one->tensors().size(), several->tensors().size());
  for (std::size_t i = 0; i < one->tensors().size(); ++i) {
    const TensorInfo& tensor = one->tensors()[i];
    for (std::size_t j = 0; j < several->tensors().size(); ++j) {
      if (several->tensors()[j].name != tensor.name) continue;
      std::vector<std::byte> expected(static_cast<std::size_t>(tensor.bytes())), found(expected.size());
      one->read_part(i, 0, expected);
      several->read_part(j, 0, found);
      EXPECT_EQ(found, expected) << tensor.name;
    }
  }
}

TEST(WrittenShards, OneIsAnOrdinaryFile) {
  ShardedJob job;
  job.options.written.max_shard_bytes = 4'000'000;
  job.run();
  EXPECT_THAT(job.files(), ElementsAre("in.safetensors", "out.safetensors"));
}

TEST(WrittenShards, AFileOfTheirNamesIsNotReplacedUnlessAskedFor) {
  for (const char* name : {kFirst, kThird, kIndex}) {
    ShardedJob job;
    write_bytes(job.dir / name, "mine");
    expect_error(ErrorKind::usage, {name, "exists already", "`overwrite`"}, [&] { job.run(); });
    EXPECT_THAT(job.files().size(), 2u);
    job.options.run.overwrite = true;
    job.run();
    EXPECT_THAT(job.files(), ElementsAre("in.safetensors", kFirst, kSecond, kThird, kIndex));
    EXPECT_NE(read_bytes(job.dir / name), "mine");
  }
}

// The file appears during the run: when the last layer is stored, before the names are given.
TEST(WrittenShards, AFileThatAppearsLeavesNoneOfThem) {
  for (const bool overwrites : {false, true}) {
    ShardedJob job;
    job.options.run.overwrite = overwrites;
    if (overwrites) write_bytes(job.dir / kFirst, "old");
    const auto make_obstacle = [&](const Progress& progress) {
      if (progress.layers_done != kShardedLayers || fs::exists(job.dir / kSecond)) return;
      if (overwrites)
        fs::create_directories(job.dir / kSecond / "full");  // which no file can replace
      else
        write_bytes(job.dir / kSecond, "mine");
    };
    expect_error(ErrorKind::io, {kSecond}, [&] { job.run({make_obstacle}); });
    if (overwrites)
      EXPECT_TRUE(read_bytes(job.dir / kFirst) == "old");
    else
      EXPECT_FALSE(fs::exists(job.dir / kFirst));
    EXPECT_FALSE(fs::exists(job.dir / kThird));
    EXPECT_FALSE(fs::exists(job.dir / kIndex));
    // What is finished is not lost.
    fs::remove_all(job.dir / kSecond);
    job.options.run.resume = true;
    job.run();
    EXPECT_THAT(job.files(), ElementsAre("in.safetensors", kFirst, kSecond, kThird, kIndex));
  }
}

class InterruptedShards : public ::testing::Test {
 protected:
  InterruptedShards() {
    ShardedJob whole;
    whole.run();
    for (const fs::path& file : whole.made.output_files()) expected_.push_back(read_bytes(file));
    std::atomic<bool> cancel = false;
    expect_error(ErrorKind::cancelled, {"keeps what is finished"}, [&] {
      job_.run({[&](const Progress& progress) { cancel = progress.layers_done >= 4; }, &cancel});
    });
    job_.options.run.resume = true;
  }

  void expect_resumed() {
    job_.run();
    EXPECT_THAT(job_.files(), ElementsAre("in.safetensors", kFirst, kSecond, kThird, kIndex));
    for (std::size_t i = 0; i < expected_.size(); ++i) EXPECT_TRUE(read_bytes(job_.made.output_files()[i]) == expected_[i]) << i;
  }

  fs::path part(const char* name) const { return job_.dir / (std::string(name) + ".qmill-part"); }

  ShardedJob job_;
  std::vector<std::string> expected_;
};

TEST_F(InterruptedShards, AreResumed) {
  for (const char* name : {kFirst, kSecond, kThird, kIndex}) EXPECT_TRUE(fs::exists(part(name))) << name;
  expect_resumed();
}

TEST_F(InterruptedShards, WithoutResumeAreAnError) {
  job_.options.run.resume = false;
  expect_error(ErrorKind::usage, {"is left of a run that ended early", "`resume`"}, [&] { job_.run(); });
}

TEST_F(InterruptedShards, AMissingPartIsWrittenAgain) {
  fs::remove(part(kFirst));
  fs::remove(part(kIndex));
  expect_resumed();
}

// As a run leaves it that was killed between two names.
TEST_F(InterruptedShards, FilesThatHadTheirNamesAlreadyAreTakenBack) {
  fs::rename(part(kFirst), job_.dir / kFirst);
  std::ofstream(job_.dir / "out.safetensors.qmill-journal", std::ios::app) << "{\"publishing\":true}\n";
  expect_resumed();
}

TEST_F(InterruptedShards, AFileOfAnotherIsNotTakenForOneOfThem) {
  write_bytes(job_.dir / kFirst, "mine");
  expect_error(ErrorKind::usage, {kFirst, "exists already"}, [&] { job_.run(); });
  EXPECT_EQ(read_bytes(job_.dir / kFirst), "mine");
}

// Another program made it, and the line in the journal says that files were getting their names.
TEST_F(InterruptedShards, NorWhenFilesWereGettingTheirNames) {
  fs::remove(part(kFirst));
  write_bytes(job_.dir / kFirst, "mine");
  std::ofstream(job_.dir / "out.safetensors.qmill-journal", std::ios::app) << "{\"publishing\":true}\n";
  expect_error(ErrorKind::usage, {kFirst, "exists already"}, [&] { job_.run(); });
  EXPECT_EQ(read_bytes(job_.dir / kFirst), "mine");
}

// As a run with overwrite leaves it: the old file has the name of the part.
TEST_F(InterruptedShards, OldFilesGetTheirNamesBackUntilTheEnd) {
  write_bytes(job_.dir / "old", "old");
  fs::rename(part(kFirst), job_.dir / kFirst);
  fs::rename(job_.dir / "old", part(kFirst));
  std::ofstream(job_.dir / "out.safetensors.qmill-journal", std::ios::app) << "{\"publishing\":true}\n";
  expect_error(ErrorKind::usage, {kFirst, "exists already", "`overwrite`"}, [&] { job_.run(); });
  EXPECT_EQ(read_bytes(job_.dir / kFirst), "old");
  job_.options.run.overwrite = true;
  expect_resumed();
}

TEST_F(InterruptedShards, NorDoesOneThatIsToGoOn) {
  job_.options.written.max_shard_bytes = std::nullopt;
  expect_error(ErrorKind::usage, {"another conversion"}, [&] { job_.run(); });
  EXPECT_TRUE(fs::exists(job_.dir / "out.safetensors.qmill-journal"));
  job_.options.written.max_shard_bytes = 40'000;
  expect_resumed();
}

TEST_F(InterruptedShards, AnOutputInOneFileDoesNotTakeTheirJournal) {
  job_.options.run.resume = false;
  job_.options.written.max_shard_bytes = std::nullopt;
  expect_error(ErrorKind::usage, {"is left of a run that ended early"}, [&] { job_.run(); });
  EXPECT_TRUE(fs::exists(job_.dir / "out.safetensors.qmill-journal"));
}

TEST_F(InterruptedShards, AnotherLimitIsAnotherConversion) {
  job_.options.written.max_shard_bytes = 20'000;
  expect_error(ErrorKind::usage, {"another conversion"}, [&] { job_.run(); });
}

}  // namespace
}  // namespace qmill
