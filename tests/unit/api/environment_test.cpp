// Variables, logging, memory, constants.
#include "api_support.h"

#include <qmill/compat/constants.h>
#include <qmill/core/environment.h>
#include <qmill/core/process.h>

#include <cstdlib>
#include <type_traits>

namespace qmill {
namespace {

using testing::Int8Conversion;
using testing::expect_error;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr std::uint64_t kMebi = 1 << 20;
constexpr std::uint64_t kGibi = 1 << 30;

class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { ::setenv(name, value, 1); }
  ~Variable() { ::unsetenv(name_); }

 private:
  const char* name_;
};

TEST(Environment, StreamingAggressiveness) {
  EXPECT_EQ(read_environment().streaming, StreamingMode::balanced);
  for (const auto& [value, mode] : {std::pair("conservative", StreamingMode::minimal), std::pair("balanced", StreamingMode::balanced),
                                    std::pair("aggressive", StreamingMode::aggressive)}) {
    const Variable variable("STREAMING_AGGRESSIVENESS", value);
    EXPECT_EQ(read_environment().streaming, mode);
  }
  const Variable variable("STREAMING_AGGRESSIVENESS", "aggressive");
  Int8Conversion job;
  job.run();
  EXPECT_THAT(job.log, HasSubstr("memory aggressive"));
  job.with([](ConvertToInt8Options& options) { options.streaming_mode = "minimal"; });  // an option beats its variable
  EXPECT_THAT(job.log, HasSubstr("memory minimal"));
  const Variable wrong("STREAMING_AGGRESSIVENESS", "bold");
  expect_error(ErrorKind::usage, {"STREAMING_AGGRESSIVENESS", "bold", "conservative, balanced, aggressive"}, [&] { job.run(); });
}

TEST(Environment, EnableMixedHadamard) {
  EXPECT_EQ(read_environment().mixed_hadamard.use, MixedHadamard::Use::automatic);
  EXPECT_THAT(read_environment().remarks, IsEmpty());
  Int8Conversion job;
  const std::string expected = job.bytes();
  {
    const Variable on("ENABLE_MIXED_HADAMARD", "1");
    EXPECT_EQ(read_environment().mixed_hadamard.use, MixedHadamard::Use::on);
    EXPECT_EQ(job.bytes(), expected);
    EXPECT_THAT(job.log, HasSubstr("ENABLE_MIXED_HADAMARD is for GPUs: on a CPU Hadamard transforms are computed in F32"));
  }
  {
    const Variable off("ENABLE_MIXED_HADAMARD", "0");
    EXPECT_EQ(read_environment().mixed_hadamard.use, MixedHadamard::Use::off);
    job.run();
    EXPECT_THAT(job.log, Not(HasSubstr("HADAMARD")));
  }
  const Variable wrong("ENABLE_MIXED_HADAMARD", "yes");
  expect_error(ErrorKind::usage, {"ENABLE_MIXED_HADAMARD", "yes", "auto, 1, 0"}, [&] { job.run(); });
}

TEST(Environment, MixedHadamardDtype) {
  EXPECT_FALSE(read_environment().mixed_hadamard.is_half);
  Int8Conversion job;
  {
    const Variable half("MIXED_HADAMARD_DTYPE", "float16");
    EXPECT_TRUE(read_environment().mixed_hadamard.is_half);
    job.run();
    EXPECT_THAT(job.log, HasSubstr("MIXED_HADAMARD_DTYPE is for GPUs"));
  }
  const Variable wrong("MIXED_HADAMARD_DTYPE", "float32");
  expect_error(ErrorKind::usage, {"MIXED_HADAMARD_DTYPE", "float32", "bfloat16, float16"}, [&] { job.run(); });
}

TEST(Memory, ModesAreLimits) {
  const auto bytes = [](StreamingMode mode, std::uint64_t free_bytes) {
    MemoryOptions options;
    options.mode = mode;
    return memory_policy(options, 0, free_bytes).bytes_in_flight;
  };
  EXPECT_EQ(bytes(StreamingMode::minimal, 8 * kGibi), 512 * kMebi);
  EXPECT_EQ(bytes(StreamingMode::balanced, 8 * kGibi), 128 * kMebi);
  EXPECT_EQ(bytes(StreamingMode::aggressive, 8 * kGibi), 32 * kMebi);
  EXPECT_EQ(bytes(StreamingMode::minimal, 64 * kMebi), 32 * kMebi);
  EXPECT_EQ(bytes(StreamingMode::balanced, 64 * kMebi), 16 * kMebi);
  EXPECT_EQ(bytes(StreamingMode::aggressive, 64 * kMebi), 4 * kMebi);
  EXPECT_GT(bytes(StreamingMode::off, 64 * kMebi), std::uint64_t{1} << 60);
}

TEST(Memory, AutoAsksHowLargeTheModelIs) {
  MemoryOptions options;
  options.mode = StreamingMode::automatic;
  EXPECT_EQ(memory_policy(options, 2 * kGibi, 8 * kGibi).mode, StreamingMode::minimal);
  EXPECT_EQ(memory_policy(options, 3 * kGibi, 8 * kGibi).mode, StreamingMode::balanced);
  EXPECT_EQ(memory_policy(options, 9 * kGibi, 8 * kGibi).mode, StreamingMode::aggressive);
}

TEST(Memory, ContradictionsAreRefused) {
  MemoryOptions options;
  options.low_memory = true;
  EXPECT_EQ(memory_policy(options, 0, kGibi).bytes_in_flight, 1u);
  options.mode = StreamingMode::off;
  expect_error(ErrorKind::usage, {"`low_memory`", "`streaming_mode off`"}, [&] { memory_policy(options, 0, kGibi); });
  options = {};
  options.no_limits = true;
  options.thresholds.ldlq = 1;
  expect_error(ErrorKind::usage, {"threshold", "`no_memory_limits`"}, [&] { memory_policy(options, 0, kGibi); });
  options.thresholds = {};
  options.bytes_in_flight = 1;
  expect_error(ErrorKind::usage, {"`in_flight`", "`no_memory_limits`"}, [&] { memory_policy(options, 0, kGibi); });
}

TEST(Memory, TheSystemSaysWhatIsFree) {
  EXPECT_GT(free_memory_bytes(), 16 * kMebi);
  EXPECT_LT(free_memory_bytes(), std::uint64_t{1} << 50);
}

TEST(Logging, SetupLogging) {
  const auto said = [](const char* level) {
    setup_logging(level);
    ::testing::internal::CaptureStderr();
    log(LogLevel::debug, "d");
    log(LogLevel::verbose, "v");
    log(LogLevel::normal, "n");
    log(LogLevel::minimal, "m");
    setup_logging(LogLevel::normal);
    return ::testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(said("DEBUG"), "qmill: d\nqmill: v\nqmill: n\nqmill: m\n");
  EXPECT_EQ(said("VERBOSE"), "qmill: v\nqmill: n\nqmill: m\n");
  EXPECT_EQ(said("NORMAL"), "qmill: n\nqmill: m\n");
  EXPECT_EQ(said("MINIMAL"), "qmill: m\n");
  expect_error(ErrorKind::usage, {"LOUD", "DEBUG, VERBOSE, NORMAL, MINIMAL"}, [] { setup_logging("LOUD"); });
}

TEST(Logging, AProgramMayTakeTheMessages) {
  std::vector<std::pair<LogLevel, std::string>> seen;
  set_log_sink([&](LogLevel level, std::string_view text) { seen.emplace_back(level, text); });
  ::testing::internal::CaptureStderr();
  log(LogLevel::minimal, "shown");
  log(LogLevel::debug, "below the level");
  set_log_sink({});
  log(LogLevel::minimal, "to stderr");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "qmill: to stderr\n");
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0], std::pair(LogLevel::minimal, std::string("shown")));
}

TEST(Logging, LevelsSayMoreOfAConversion) {
  Int8Conversion job;
  setup_logging("DEBUG");
  job.run();
  EXPECT_THAT(job.log, HasSubstr("quantize a.weight [primary]"));
  setup_logging("MINIMAL");
  job.run();
  EXPECT_EQ(job.log, "");
  setup_logging("NORMAL");
}

TEST(Constants, AreTheDocumentedOnes) {
  static_assert(TARGET_INT8_DTYPE == at::kChar && COMPUTE_DTYPE == at::kFloat && SCALE_DTYPE == at::kFloat && INT8_SYMMETRIC_MAX == 127);
  static_assert(std::is_same_v<WeightTensor, at::Tensor> && std::is_same_v<ScaleTensor, at::Tensor> &&
                std::is_same_v<HessianMatrix, at::Tensor>);
  static_assert(std::is_same_v<FilterFlags, std::map<std::string, bool>>);
  Int8Conversion job;
  const testing::ModelFile out = job.run();
  EXPECT_EQ(out.tensors.at("a.weight").scalar_type(), TARGET_INT8_DTYPE);
  EXPECT_EQ(out.tensors.at("a.weight_scale").scalar_type(), SCALE_DTYPE);
  EXPECT_EQ(out.tensors.at("a.weight").abs().max().item<int>(), INT8_SYMMETRIC_MAX);
}

TEST(Constants, ModelFilters) {
  EXPECT_TRUE(MODEL_FILTERS.contains("t5xxl"));
  EXPECT_FALSE(MODEL_FILTERS.contains("t5xl"));
  EXPECT_THAT(MODEL_FILTERS.names(),
              ::testing::IsSupersetOf({"t5xxl", "mistral", "visual", "flux2", "distillation_large", "distillation_small", "nerf_large",
                                       "nerf_small", "radiance", "wan", "hunyuan", "qwen", "zimage", "zimage_refiner", "lora"}));
  EXPECT_EQ(MODEL_FILTERS.at("t5xxl").classify({"shared.weight", DType::f32, {2, 2}}).treatment, Treatment::keep);
  expect_error(ErrorKind::usage, {"t5xl", "t5xxl"}, [] { MODEL_FILTERS.at("t5xl"); });
}

}  // namespace
}  // namespace qmill
