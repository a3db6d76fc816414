#include "expect_error.h"
#include "engine/buffer_pool.h"
#include "engine/channel.h"
#include "engine/shared_values.h"
#include "engine/task_pool.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>

namespace qmill {
namespace {

using namespace std::chrono_literals;

TEST(TaskPool, EveryTaskRunsOnceForEveryNumberOfThreads) {
  for (const int threads : {1, 2, 3, 8}) {
    TaskPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const std::int64_t tasks : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(tasks));
      pool.parallel(tasks, [&](std::int64_t task) { ++runs[static_cast<std::size_t>(task)]; });
      for (const auto& count : runs) EXPECT_EQ(count, 1);
    }
  }
}

TEST(TaskPool, ZeroThreadsMeansOnePerProcessor) { EXPECT_GE(TaskPool(0).threads(), 1); }

TEST(TaskPool, NestedLoopsFinish) {
  TaskPool pool(3);
  std::atomic<int> runs = 0;
  pool.parallel(4, [&](std::int64_t) { pool.parallel(5, [&](std::int64_t) { pool.parallel(6, [&](std::int64_t) { ++runs; }); }); });
  EXPECT_EQ(runs, 4 * 5 * 6);
}

TEST(TaskPool, LoopsInsideJobsFinish) {
  std::atomic<int> runs = 0;
  {
    TaskPool pool(2);
    for (int job = 0; job < 20; ++job) pool.submit([&] { pool.parallel(50, [&](std::int64_t) { ++runs; }); });
  }  // waits
  EXPECT_EQ(runs, 20 * 50);
}

TEST(TaskPool, TheDestructorFinishesWhatWasSubmitted) {
  for (const int threads : {1, 4}) {
    std::atomic<int> runs = 0;
    {
      TaskPool pool(threads);
      for (int job = 0; job < 100; ++job) pool.submit([&] { ++runs; });
    }
    EXPECT_EQ(runs, 100);
  }
}

TEST(TaskPool, AnExceptionReachesTheCallerAndThePoolGoesOn) {
  for (const int threads : {1, 4}) {
    TaskPool pool(threads);
    for (int round = 0; round < 20; ++round) {
      try {
        pool.parallel(100, [&](std::int64_t task) {
          if (task == 3) throw std::runtime_error("task 3");
        });
        ADD_FAILURE() << "nothing was thrown";
      } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "task 3");
      }
    }
    std::atomic<int> runs = 0;
    pool.parallel(10, [&](std::int64_t) { ++runs; });
    EXPECT_EQ(runs, 10);
  }
}

TEST(TaskPool, AfterAnExceptionNoBodyIsRunningAnyMore) {
  TaskPool pool(4);
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> running = 0;
    EXPECT_ANY_THROW(pool.parallel(64, [&](std::int64_t task) {
      ++running;
      if (task % 8 == 1) {
        --running;
        throw 42;
      }
      std::this_thread::yield();
      --running;
    }));
    EXPECT_EQ(running, 0);
  }
}

TEST(TaskPool, SeveralThreadsMayLoopAtOnce) {
  TaskPool pool(2);
  std::atomic<std::int64_t> sum = 0;
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 16; ++caller)
    callers.emplace_back([&] {
      for (int round = 0; round < 20; ++round) pool.parallel(30, [&](std::int64_t task) { sum += task; });
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 16 * 20 * (29 * 30 / 2));
}

TEST(TaskPool, IdleThreadsHelpInsideAJob) {
  TaskPool pool(2);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  std::atomic<int> inside = 0;
  pool.parallel(2, [&](std::int64_t) {
    // Both tasks must be under way at once, so two threads must have taken one each.
    ++inside;
    const auto give_up = std::chrono::steady_clock::now() + 10s;
    while (inside < 2 && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(threads.size(), 2u);
}

TEST(TaskPool, AHelperTakesLoopsAndNoJobs) {
  TaskPool pool(2);
  std::atomic<bool> done = false, helped = false, other_job_ran = false;
  std::atomic<bool> release = false;
  std::mutex mutex;
  std::set<std::thread::id> in_loop;
  std::thread helper([&] {
    const std::thread::id self = std::this_thread::get_id();
    pool.help_until([&] { return done.load(); });
    const std::lock_guard lock(mutex);
    helped = in_loop.contains(self);
  });
  // Both workers are busy: only the helper can take the second task, and nobody the last job.
  pool.submit([&] {
    while (!release) std::this_thread::sleep_for(1ms);
  });
  pool.submit([&] {
    std::atomic<int> inside = 0;
    const auto give_up = std::chrono::steady_clock::now() + 20s;
    pool.parallel(2, [&](std::int64_t) {
      ++inside;
      while (inside < 2 && std::chrono::steady_clock::now() < give_up) std::this_thread::sleep_for(1ms);
      const std::lock_guard lock(mutex);
      in_loop.insert(std::this_thread::get_id());
    });
    EXPECT_FALSE(other_job_ran);
    done = true;
    pool.wake_helpers();
    release = true;
  });
  pool.submit([&] { other_job_ran = true; });
  helper.join();
  EXPECT_TRUE(helped);
}

TEST(TaskPool, AHelperReturnsAtOnceWhenNothingIsAwaited) {
  TaskPool pool(1);
  pool.help_until([] { return true; });
}

TEST(SharedValues, AreMadeOnceAndThoseWhoWaitHelp) {
  for (const int threads : {1, 2, 4}) {
    SharedValues shared;
    std::atomic<int> made = 0, tasks = 0, right = 0;
    {
      TaskPool pool(threads);
      for (int job = 0; job < 12; ++job)
        pool.submit([&] {
          const auto value = std::static_pointer_cast<const int>(shared.get(
              "key",
              [&] {
                ++made;
                pool.parallel(200, [&](std::int64_t) {
                  ++tasks;
                  std::this_thread::yield();
                });
                return std::make_shared<const int>(42);
              },
              pool));
          right += *value == 42;
        });
    }
    EXPECT_EQ(made, 1);
    EXPECT_EQ(tasks, 200);
    EXPECT_EQ(right, 12);
  }
}

TEST(SharedValues, OneValueMayBeMadeOfAnother) {
  SharedValues shared;
  std::atomic<int> sum = 0;
  {
    TaskPool pool(3);
    for (int job = 0; job < 20; ++job)
      pool.submit([&] {
        const auto inner = [&] {
          return shared.get(
              "inner",
              [&] {
                pool.parallel(50, [](std::int64_t) { std::this_thread::yield(); });
                return std::make_shared<const int>(1);
              },
              pool);
        };
        sum += *std::static_pointer_cast<const int>(shared.get("outer", inner, pool));
      });
  }
  EXPECT_EQ(sum, 20);
}

TEST(SharedValues, AnExceptionReachesAllAndIsNotKept) {
  SharedValues shared;
  std::atomic<int> made = 0, thrown = 0;
  {
    TaskPool pool(4);
    for (int job = 0; job < 8; ++job)
      pool.submit([&] {
        try {
          shared.get(
              "key",
              [&]() -> std::shared_ptr<const void> {
                ++made;
                std::this_thread::sleep_for(20ms);
                throw std::runtime_error("no");
              },
              pool);
        } catch (const std::runtime_error&) {
          ++thrown;
        }
      });
  }
  EXPECT_EQ(thrown, 8);
  EXPECT_LE(made, 8);
  TaskPool pool(1);
  EXPECT_EQ(*std::static_pointer_cast<const int>(shared.get(
                "key", [] { return std::make_shared<const int>(3); }, pool)),
            3);
}

TEST(SharedValues, OnlyTheLastOnesAreKept) {
  SharedValues shared;
  TaskPool pool(1);
  std::map<std::string, int> made;
  const auto ask = [&](const std::string& key) {
    shared.get(
        key,
        [&] {
          ++made[key];
          return std::make_shared<const int>(0);
        },
        pool);
  };
  for (const char* key : {"a", "b", "c", "d", "a", "e", "a", "b"}) ask(key);
  EXPECT_EQ(made["a"], 1) << "asked for again before it was the oldest";
  EXPECT_EQ(made["b"], 2);
  const std::weak_ptr<const void> gone = shared.get(
      "f", [] { return std::make_shared<const int>(0); }, pool);
  for (const char* key : {"g", "h", "i", "j"}) ask(key);
  EXPECT_TRUE(gone.expired()) << "memory is given back";
}

TEST(SharedValues, AValueThatAsksForItselfIsAnErrorAndNoDeadlock) {
  SharedValues shared;
  TaskPool pool(2);
  const std::function<std::shared_ptr<const void>()> make = [&] { return shared.get("key", make, pool); };
  testing::expect_error(ErrorKind::plugin, {"'key'"}, [&] { shared.get("key", make, pool); });
}

TEST(BufferPool, TensorsHaveTheShapeAndTypeThatWereAskedFor) {
  const auto pool = std::make_shared<BufferPool>(1 << 20);
  for (const DType dtype : {DType::u8, DType::i8, DType::f32, DType::f16, DType::f64}) {
    const at::Tensor tensor = pool->allocate(std::array<std::int64_t, 2>{300, 70}, dtype);
    EXPECT_EQ(tensor.sizes(), (at::IntArrayRef{300, 70}));
    EXPECT_EQ(dtype_of(tensor), dtype);
    EXPECT_TRUE(tensor.is_contiguous());
    std::memset(tensor.mutable_data_ptr(), 0x5a, tensor.nbytes());
  }
  EXPECT_EQ(pool->allocate(std::array<std::int64_t, 2>{0, 70}, DType::f32).numel(), 0);
  EXPECT_EQ(pool->allocate(std::span<const std::int64_t>(), DType::f32).numel(), 1);
}

TEST(BufferPool, MemoryIsUsedAgainOnlyAfterItsTensorDied) {
  const auto pool = std::make_shared<BufferPool>(64 << 20);
  const std::array<std::int64_t, 1> shape = {1 << 20};
  at::Tensor first = pool->allocate(shape, DType::u8);
  const void* where = first.const_data_ptr();
  const at::Tensor second = pool->allocate(shape, DType::u8);
  EXPECT_NE(second.const_data_ptr(), where);
  const at::Tensor view = first.view({2, 1 << 19});
  first = at::Tensor();
  EXPECT_NE(pool->allocate(shape, DType::u8).const_data_ptr(), where) << "a view still holds it";
}

TEST(BufferPool, FreedMemoryComesBackForTheSameSize) {
  const auto pool = std::make_shared<BufferPool>(64 << 20);
  const std::array<std::int64_t, 1> shape = {1 << 20};
  const void* where = pool->allocate(shape, DType::u8).const_data_ptr();
  EXPECT_EQ(pool->allocate(shape, DType::u8).const_data_ptr(), where);
}

TEST(BufferPool, TensorsOutliveThePool) {
  auto pool = std::make_shared<BufferPool>(0);
  const at::Tensor tensor = pool->allocate(std::array<std::int64_t, 1>{1 << 20}, DType::u8);
  pool.reset();
  std::memset(tensor.mutable_data_ptr(), 1, tensor.nbytes());
  EXPECT_EQ(static_cast<const char*>(tensor.const_data_ptr())[1000], 1);
}

TEST(BufferPool, ManyThreadsNeverShareABuffer) {
  const auto pool = std::make_shared<BufferPool>(4 << 20);
  std::atomic<int> clashes = 0;
  std::vector<std::thread> threads;
  for (int id = 0; id < 8; ++id)
    threads.emplace_back([&, id] {
      for (int round = 0; round < 50; ++round) {
        const at::Tensor tensor = pool->allocate(std::array<std::int64_t, 1>{(64 << 10) + id * 4096 + round * 64}, DType::u8);
        auto* bytes = static_cast<unsigned char*>(tensor.mutable_data_ptr());
        std::memset(bytes, id, tensor.nbytes());
        std::this_thread::yield();
        if (bytes[0] != id || bytes[tensor.nbytes() - 1] != id) ++clashes;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(clashes, 0);
}

TEST(Channel, ItemsComeInOrderAndThenNothing) {
  Channel<int> channel;
  channel.push(1);
  channel.push(2);
  channel.close();
  EXPECT_EQ(channel.pop(), 1);
  EXPECT_EQ(channel.pop(), 2);
  EXPECT_EQ(channel.pop(), std::nullopt);
  EXPECT_EQ(channel.pop(), std::nullopt);
}

TEST(Channel, AWaitingReaderWakesForAnItemAndForTheEnd) {
  Channel<std::string> channel;
  std::vector<std::string> got;
  std::thread reader([&] {
    while (std::optional<std::string> item = channel.pop()) got.push_back(*item);
  });
  channel.push("a");
  std::this_thread::sleep_for(5ms);
  channel.push("b");
  std::this_thread::sleep_for(5ms);
  channel.close();
  reader.join();
  EXPECT_EQ(got, (std::vector<std::string>{"a", "b"}));
}

TEST(Channel, NothingIsLostBetweenManyWriters) {
  Channel<int> channel;
  std::vector<std::thread> writers;
  for (int writer = 0; writer < 8; ++writer)
    writers.emplace_back([&] {
      for (int i = 1; i <= 100; ++i) channel.push(i);
    });
  std::int64_t sum = 0;
  std::thread reader([&] {
    while (const std::optional<int> item = channel.pop()) sum += *item;
  });
  for (std::thread& writer : writers) writer.join();
  channel.close();
  reader.join();
  EXPECT_EQ(sum, 8 * 5050);
}

TEST(ByteBudget, WhatFitsGoesAtOnce) {
  ByteBudget budget(100);
  budget.acquire(60);
  budget.acquire(40);
  budget.release(100);
}

TEST(ByteBudget, WhatDoesNotFitWaitsUntilThereIsRoom) {
  ByteBudget budget(100);
  budget.acquire(60);
  std::atomic<bool> acquired = false;
  std::thread other([&] {
    budget.acquire(50);
    acquired = true;
  });
  std::this_thread::sleep_for(50ms);
  EXPECT_FALSE(acquired);
  budget.release(10);
  other.join();
  EXPECT_TRUE(acquired);
}

TEST(ByteBudget, WhatIsLargerThanTheLimitGoesAlone) {
  ByteBudget budget(100);
  budget.acquire(1000);  // must not wait for ever
  std::atomic<bool> acquired = false;
  std::thread other([&] {
    budget.acquire(1);
    acquired = true;
  });
  std::this_thread::sleep_for(50ms);
  EXPECT_FALSE(acquired);
  budget.release(1000);
  other.join();
  EXPECT_TRUE(acquired);
}

TEST(ByteBudget, TheLimitHoldsForManyThreads) {
  ByteBudget budget(100);
  std::atomic<std::int64_t> used = 0;
  std::atomic<bool> exceeded = false;
  std::vector<std::thread> threads;
  for (int id = 1; id <= 8; ++id)
    threads.emplace_back([&, id] {
      for (int round = 0; round < 100; ++round) {
        budget.acquire(static_cast<std::uint64_t>(id * 10));
        if ((used += id * 10) > 100) exceeded = true;
        used -= id * 10;
        budget.release(static_cast<std::uint64_t>(id * 10));
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(exceeded);
}

TEST(Failure, KeepsTheFirst) {
  Failure failure;
  EXPECT_NO_THROW(failure.rethrow());
  EXPECT_FALSE(failure.happened());
  failure.set(std::make_exception_ptr(std::runtime_error("first")));
  failure.set(std::make_exception_ptr(std::runtime_error("second")));
  EXPECT_TRUE(failure.happened());
  try {
    failure.rethrow();
    ADD_FAILURE();
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "first");
  }
}

}  // namespace
}  // namespace qmill
