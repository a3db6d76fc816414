// One conversion made by several ranks: threads of this process here, that talk through a post office.
#include "core_support.h"

#include <qmill/core/peers.h>

#include <gmock/gmock.h>

#include <condition_variable>
#include <deque>
#include <fstream>
#include <thread>

namespace qmill {
namespace {

namespace fs = std::filesystem;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Job;
using testing::NamedTensor;
using testing::random_weight;
using testing::read_bytes;
using testing::write_bytes;

// Letters between ranks.
class PostOffice {
 public:
  explicit PostOffice(int count) : boxes_(static_cast<std::size_t>(count)) {}

  void send(int from, int to, const std::string& text) {
    const std::lock_guard lock(mutex_);
    boxes_[static_cast<std::size_t>(to)].push_back({from, text});
    arrived_.notify_all();
  }
  std::optional<Peers::Mail> receive(int rank, std::chrono::milliseconds wait) {
    std::unique_lock lock(mutex_);
    auto& box = boxes_[static_cast<std::size_t>(rank)];
    if (!arrived_.wait_for(lock, wait, [&] { return !box.empty(); })) return std::nullopt;
    Peers::Mail mail = std::move(box.front());
    box.pop_front();
    return mail;
  }
  int count() const { return static_cast<int>(boxes_.size()); }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<std::deque<Peers::Mail>> boxes_;
};

class ThreadPeers final : public Peers {
 public:
  ThreadPeers(PostOffice& office, int rank) : office_(office), rank_(rank) {}
  int rank() const override { return rank_; }
  int count() const override { return office_.count(); }
  void send(int to, const std::string& text) override {
    if (!is_dead) office_.send(rank_, to, text);
  }
  std::optional<Mail> receive(std::chrono::milliseconds wait) override { return office_.receive(rank_, wait); }
  std::chrono::seconds patience() const override { return std::chrono::seconds(is_impatient ? 2 : 60); }

  std::atomic<bool> is_dead = false;  // it says nothing any more
  bool is_impatient = false;

 private:
  PostOffice& office_;
  const int rank_;
};

std::vector<NamedTensor> eight_layers() {
  std::vector<NamedTensor> tensors;
  for (std::int64_t i = 0; i < 8; ++i) {
    const std::string name = "l" + std::to_string(i);
    tensors.push_back({name + ".weight", random_weight(16 + 8 * i, 256, at::kFloat, static_cast<std::uint64_t>(i))});
    tensors.push_back({name + ".bias", random_weight(1, 16, at::kFloat, static_cast<std::uint64_t>(i))[0]});
  }
  return tensors;
}

struct Rank {
  ConvertReport report;
  std::string error;  // empty: it returned
};

// A job whose run() is that of several ranks. Each opens and plans by itself.
struct SharedJob : Job {
  explicit SharedJob(int count) : Job(eight_layers()), office(count), ranks(static_cast<std::size_t>(count)) {
    options.run.threads = 1;
    for (int rank = 0; rank < count; ++rank) peers.push_back(std::make_unique<ThreadPeers>(office, rank));
  }

  // `change` may make the options of a rank others; `hooks` of a rank.
  void run_all(const std::function<void(int, ConvertOptions&)>& change = {}, const std::function<void(int, RunHooks&)>& hook = {}) {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < office.count(); ++rank)
      threads.emplace_back([this, rank, &change, &hook] {
        Rank& result = ranks[static_cast<std::size_t>(rank)];
        try {
          ConvertOptions own = options;
          if (change) change(rank, own);
          RunHooks hooks;
          hooks.peers = peers[static_cast<std::size_t>(rank)].get();
          if (hook) hook(rank, hooks);
          const auto opened = testing::host().open(own.input);
          const Plan plan = make_plan(testing::host(), *opened, own);
          result.report = run_plan(*opened, plan, hooks);
        } catch (const Error& error) {
          result.error = error.what();
        }
      });
    for (std::thread& thread : threads) thread.join();
  }

  PostOffice office;
  std::vector<std::unique_ptr<ThreadPeers>> peers;
  std::vector<Rank> ranks;
};

struct Expected {
  explicit Expected(const ConvertOptions& options) : job(eight_layers()) {
    const fs::path input = job.options.input, output = job.options.output;
    job.options = options;
    job.options.input = input;
    job.options.output = output;
    report = job.run();
    for (const fs::path& file : job.made.output_files()) bytes[file.filename().string()] = read_bytes(file);
  }
  Job job;
  ConvertReport report;
  std::map<std::string, std::string> bytes;  // by file name
};

void expect_same(const SharedJob& job, const Expected& expected) {
  for (const Rank& rank : job.ranks) EXPECT_EQ(rank.error, "");
  for (const auto& [name, bytes] : expected.bytes) EXPECT_TRUE(read_bytes(job.dir / name) == bytes) << name;
  EXPECT_EQ(job.files().size(), expected.bytes.size() + 1);
  const ConvertReport& report = job.ranks[0].report;
  ASSERT_EQ(report.layers.size(), expected.report.layers.size());
  for (std::size_t i = 0; i < report.layers.size(); ++i) {
    EXPECT_EQ(report.layers[i].quality.name, expected.report.layers[i].quality.name);
    EXPECT_EQ(report.layers[i].quality.mse, expected.report.layers[i].quality.mse);
    EXPECT_EQ(report.layers[i].notes, expected.report.layers[i].notes);
  }
  EXPECT_EQ(report.bytes_written, expected.report.bytes_written);
}

TEST(SharedRun, AnyNumberOfRanksGivesTheBytesOfOne) {
  for (const char* quantizer : {"rtn", "gptq", "quip"})
    for (const int count : {1, 2, 3, 12}) {
      SharedJob job(count);
      job.options.target.quantizer = quantizer;
      const Expected expected(job.options);
      job.run_all();
      expect_same(job, expected);
    }
}

TEST(SharedRun, ShardsToo) {
  SharedJob job(3);
  job.options.written.max_shard_bytes = 20'000;
  const Expected expected(job.options);
  EXPECT_GT(expected.bytes.size(), 3u);
  job.run_all();
  expect_same(job, expected);
}

TEST(SharedRun, WithoutPartsThatStayToo) {
  SharedJob job(2);
  job.options.run.keep_part = false;
  const Expected expected(job.options);
  job.run_all();
  expect_same(job, expected);
}

TEST(SharedRun, ProgressIsOfAllRanks) {
  SharedJob job(3);
  std::atomic<std::size_t> layers = 0, others = 0;
  std::atomic<std::uint64_t> done = 0, all = 0;
  job.run_all({}, [&](int rank, RunHooks& hooks) {
    hooks.progress = [&, rank](const Progress& progress) {
      if (rank != 0) ++others;
      layers = progress.layers_done;
      done = progress.bytes_done;
      all = progress.bytes;
    };
  });
  EXPECT_EQ(layers, 8u);
  EXPECT_EQ(done, all);
  EXPECT_EQ(others, 0u);
}

TEST(SharedRun, RanksThatWouldMakeDifferentFilesAreToldSo) {
  SharedJob job(3);
  job.run_all([](int rank, ConvertOptions& options) {
    if (rank == 2) options.target.storage.scaling = Scaling::tensor;
  });
  EXPECT_THAT(job.ranks[0].error, HasSubstr("rank 2: it would make another output"));
  EXPECT_THAT(job.ranks[1].error, HasSubstr("rank 0 ended the run: rank 2: it would make another output"));
  EXPECT_THAT(job.files(), ElementsAre("in.safetensors"));
}

TEST(SharedRun, RanksWithOutputsOfOtherNamesAreToldSo) {
  SharedJob job(2);
  job.run_all([&](int rank, ConvertOptions& options) {
    if (rank == 1) options.output = job.dir / "other.safetensors";
  });
  EXPECT_THAT(job.ranks[0].error, HasSubstr("rank 1: it would make another output: its output is '"));
  EXPECT_THAT(job.files(), ElementsAre("in.safetensors"));
}

TEST(SharedRun, ARankThatCannotBeginEndsTheOthers) {
  for (const int failing : {0, 1}) {
    SharedJob job(3);
    job.run_all([&](int rank, ConvertOptions& options) {
      if (rank == failing) options.output = options.input;
    });
    for (const Rank& rank : job.ranks) EXPECT_THAT(rank.error, HasSubstr("same file as the input"));
    EXPECT_THAT(job.files(), ElementsAre("in.safetensors"));
  }
}

TEST(SharedRun, SeedsThatAreDrawnAreRefused) {
  SharedJob job(2);
  job.options.seed = -1;
  job.run_all();
  EXPECT_THAT(job.ranks[0].error, HasSubstr("`manual_seed` -1 draws another seed in each process"));
}

// Of each rank once: what is finished then is not done again.
TEST(SharedRun, ARankThatIsInterruptedLeavesWhatIsFinished) {
  for (const int interrupted : {0, 2}) {
    SharedJob job(3);
    const Expected expected(job.options);
    std::vector<std::atomic<bool>> cancel(3);
    job.run_all({}, [&](int rank, RunHooks& hooks) {
      hooks.cancel = &cancel[static_cast<std::size_t>(rank)];
      if (rank == 0)
        hooks.progress = [&](const Progress& progress) {
          if (progress.layers_done >= 2) cancel[static_cast<std::size_t>(interrupted)] = true;
        };
    });
    if (interrupted != 0 && job.ranks[0].error.empty()) {  // that rank had nothing left to do
      EXPECT_TRUE(read_bytes(job.options.output) == expected.bytes.at("out.safetensors"));
      continue;
    }
    EXPECT_THAT(job.ranks[0].error, HasSubstr("interrupted"));
    EXPECT_THAT(job.ranks[0].error, HasSubstr("keeps what is finished"));
    EXPECT_THAT(job.files(), ElementsAre("in.safetensors", "out.safetensors.qmill-journal", "out.safetensors.qmill-part"));
    SharedJob again(2);  // letters of the first run are still on the way
    again.options = job.options;
    again.options.run.resume = true;
    again.run_all();
    EXPECT_EQ(again.ranks[0].error, "");
    EXPECT_EQ(again.ranks[1].error, "");
    EXPECT_TRUE(read_bytes(job.options.output) == expected.bytes.at("out.safetensors"));
  }
}

TEST(SharedRun, ARankThatIsSilentEndsTheRun) {
  SharedJob job(3);
  for (const auto& peer : job.peers) peer->is_impatient = true;
  job.run_all({}, [&](int rank, RunHooks& hooks) {
    if (rank == 0) hooks.progress = [&](const Progress&) { job.peers[1]->is_dead = true; };
  });
  EXPECT_THAT(job.ranks[0].error, HasSubstr("rank 1: it has said nothing for 2 s"));
  EXPECT_THAT(job.ranks[0].error, HasSubstr("`resume` goes on with it"));
  EXPECT_THAT(job.ranks[1].error, HasSubstr("rank 0 ended the run"));
  EXPECT_FALSE(fs::exists(job.options.output));
  SharedJob again(2);
  again.options = job.options;
  again.options.run.resume = true;
  again.run_all();
  EXPECT_EQ(again.ranks[0].error, "");
  EXPECT_TRUE(read_bytes(job.options.output) == Expected(SharedJob(1).options).bytes.at("out.safetensors"));
}

TEST(SharedRun, AnInputThatChangesIsNoticedByTheRankThatSeesIt) {
  SharedJob job(2);
  std::atomic<bool> has_changed = false;
  job.run_all({}, [&](int rank, RunHooks& hooks) {
    if (rank == 0)
      hooks.progress = [&](const Progress& progress) {
        if (progress.layers_done < 2 || has_changed.exchange(true)) return;
        std::ofstream(job.options.input, std::ios::app) << "x";
      };
  });
  EXPECT_THAT(job.ranks[0].error, HasSubstr("rank 1: "));  // it looks before it says that it is done
  EXPECT_THAT(job.ranks[0].error, HasSubstr("changed"));
  EXPECT_FALSE(fs::exists(job.options.output));
}

TEST(SharedRun, MessagesThatMakeNoSenseEndIt) {
  const std::string rest = R"(,"text":"","decisions":[],"finished":[],"error":null})";
  for (const std::string& text : {std::string("hello?"), std::string("{}"), R"({"kind":99)" + rest, R"({"kind":-1)" + rest,
                                  R"({"kind":6)" + rest /* failed, without an error */}) {
    SharedJob job(2);
    job.office.send(1, 0, text);
    job.run_all();
    EXPECT_THAT(job.ranks[0].error, HasSubstr("a message that qmill does not understand")) << text;
    EXPECT_THAT(job.ranks[1].error, HasSubstr("rank 0 ended the run")) << text;
  }
}

TEST(SharedRun, NumbersOfTensorsThatAreNotThereEndIt) {
  SharedJob job(2);
  job.run_all({}, [&](int rank, RunHooks& hooks) {
    if (rank == 0)
      hooks.progress = [&, is_first = true](const Progress&) mutable {
        if (std::exchange(is_first, false))
          job.office.send(1, 0, R"({"kind":4,"text":"","decisions":[],"error":null,"finished":[)"
                                R"({"decision":77777,"warning":"","entry":{"tensors":{},"report":null}}]})");
      };
  });
  EXPECT_THAT(job.ranks[0].error, HasSubstr("tensor number 77777, of 16"));
  EXPECT_FALSE(fs::exists(job.options.output));
}

}  // namespace
}  // namespace qmill
