// Core names no plugin: without one that rounds to nearest everything still plans and runs.
#include "expect_error.h"
#include "model_file.h"
#include "temp_dir.h"

#include "plan/automatic.h"

#include <qmill/core/conversion.h>
#include <qmill/round_to_nearest.h>

#include <gtest/gtest.h>

#include <cstdlib>

namespace qmill {
namespace {

namespace fs = std::filesystem;
using testing::random_weight;
using testing::TempDir;

// This program does not lie where plugins are: a host finds what a test puts into its folder.
class WithoutRtn : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("XDG_DATA_HOME", (home_ / "data").c_str(), 1);
    ::unsetenv("QMILL_PLUGIN_PATH");
  }
  void TearDown() override { ::unsetenv("XDG_DATA_HOME"); }

  fs::path folder_with(std::initializer_list<const char*> plugins) {
    const fs::path folder = home_ / "plugins";
    fs::create_directory(folder);
    for (const char* name : plugins)
      fs::copy_file(fs::path(QMILL_TEST_PLUGINS) / ("libqmill_" + std::string(name) + ".so"),
                    folder / ("libqmill_" + std::string(name) + ".so"));
    return folder;
  }

  ConvertOptions options() {
    ConvertOptions options;
    options.input = home_ / "in.safetensors";
    options.output = home_ / "out.safetensors";
    options.run.overwrite = true;
    options.run.sync = false;
    testing::write_model(options.input,
                         {{"a.weight", random_weight(32, 256, at::kFloat, 1)}, {"b.weight", random_weight(32, 96, at::kFloat, 2)}});
    return options;
  }

  void add_calibration(ConvertOptions& options) {
    options.calibration.data = home_ / "calibration.safetensors";
    testing::write_model(options.calibration.data, {{"a.input", random_weight(300, 256, at::kFloat, 3)}});
  }

  TempDir home_;
};

TEST_F(WithoutRtn, EverythingPlansAndRuns) {
  const Host host({folder_with({"safetensors"})});
  ASSERT_TRUE(host.candidates().size() == 1) << "other plugins were found";
  for (const char* quantizer : {"auto", "rtn", "simple"}) {
    ConvertOptions given = options();
    given.target.quantizer = quantizer;
    given.layers.config = parse_layer_config(R"({"^a$": {"simple": true}, "_default": {"optimizer": "rtn", "simple": true}})");
    Conversion conversion(host, given);
    EXPECT_EQ(conversion.plan().chosen_quantizer, "rtn");
    EXPECT_EQ(conversion.run().layers.size(), 2u);
  }
  EXPECT_EQ(&host.quantizer("rtn"), &plain_rounding());
  EXPECT_EQ(&plain_quantizer(host, host.format("int4")), &plain_rounding());
}

TEST_F(WithoutRtn, CalibrationDataThatNoPluginUsesAreNoReasonToFail) {
  const Host host({folder_with({"safetensors"})});
  ConvertOptions given = options();
  add_calibration(given);
  const Plan plan = Conversion(host, given).plan();
  EXPECT_EQ(plan.chosen_quantizer, "rtn");
  EXPECT_EQ(plan.chosen_because, "no plugin that was found uses calibration data");
}

TEST_F(WithoutRtn, ADamagedPluginIsNoReasonToRoundInSilence) {
  const fs::path folder = folder_with({"safetensors", "gptq"});
  fs::resize_file(folder / "libqmill_gptq.so", 1000);
  ConvertOptions given = options();
  add_calibration(given);
  {
    const Host host({folder});
    testing::expect_error(ErrorKind::plugin, {"libqmill_gptq.so' was refused", "`optimizer rtn`"}, [&] { Conversion(host, given).plan(); });
  }
  folder_with({"quip"});
  const Host host({folder});
  const Plan plan = Conversion(host, given).plan();
  EXPECT_EQ(plan.chosen_quantizer, "quip");
  EXPECT_NE(plan.chosen_because.find("libqmill_gptq.so' was refused"), std::string::npos) << plan.chosen_because;
}

TEST_F(WithoutRtn, TheCheapestQuantizerThatUsesThemIsTaken) {
  const Host host({folder_with({"safetensors", "quip", "learned_rounding"})});
  ConvertOptions given = options();
  add_calibration(given);
  const Plan plan = Conversion(host, given).plan();
  EXPECT_EQ(plan.chosen_quantizer, "quip");
  EXPECT_EQ(plan.chosen_because, "there is calibration data of 1 of 2 layers; rtn for the others");
  EXPECT_EQ(plan.decisions.at(0).quantizer->info().name, "quip");
  EXPECT_EQ(plan.decisions.at(1).quantizer->info().name, "rtn");
}

TEST_F(WithoutRtn, OfAllThatComeWithItThisIsGptq) {
  const Host host({folder_with({"gptq", "quip", "learned_rounding"})});
  const std::vector<const Quantizer*> calibrated = calibrated_quantizers(host);
  ASSERT_FALSE(calibrated.empty());
  EXPECT_EQ(calibrated.front()->info().name, "gptq");
}

TEST_F(WithoutRtn, OfTheseAutoMayTakePlainRoundingAndTheCheapest) {
  const Host host({folder_with({"gptq", "quip"})});
  EXPECT_TRUE(may_be_automatic(host, host.plain_rounding()));
  EXPECT_TRUE(may_be_automatic(host, host.quantizer("gptq")));
  EXPECT_FALSE(may_be_automatic(host, host.quantizer("quip")));
}

}  // namespace
}  // namespace qmill
