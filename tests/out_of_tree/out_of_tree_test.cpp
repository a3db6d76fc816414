// Uses the plugin that was built outside of this project.
#include "model_file.h"
#include "temp_dir.h"

#include <qmill/core/convert.h>

#include <gtest/gtest.h>

namespace qmill {
namespace {

using testing::random_weight;

class OutOfTree : public ::testing::TestWithParam<const char*> {};

at::Tensor scale_of(const at::Tensor& weight) { return weight.abs().amax({1}, true).div(127).clamp_min(1e-30); }

TEST_P(OutOfTree, TheHostFindsThePluginWithItsVersionAndOptions) {
  const Host host({GetParam()});
  const QuantizerInfo& info = host.quantizer("acme.sign").info();
  ASSERT_EQ(info.options.size(), 1u);
  EXPECT_EQ(info.options[0].name, "away");
  const std::vector<PluginCandidate> candidates = host.candidates();
  const auto found =
      std::find_if(candidates.begin(), candidates.end(), [](const PluginCandidate& plugin) { return plugin.name == "acme_sign"; });
  ASSERT_NE(found, candidates.end());
  EXPECT_EQ(plugin_status_name(found->status), "loaded") << found->reason;
  EXPECT_EQ(found->version, "0.3");
  EXPECT_EQ(found->file.parent_path(), std::filesystem::path(GetParam()));
}

TEST_P(OutOfTree, ItTakesTheLayersThatTheLayerConfigGivesIt) {
  const Host host({GetParam()});
  const testing::TempDir dir;
  ConvertOptions options;
  options.input = dir / "in.safetensors";
  options.output = dir / "out.safetensors";
  options.run.threads = 4;
  options.layers.config =
      parse_layer_config(R"({"^towards$": {"optimizer": "acme.sign"}, "^away$": {"optimizer": "acme.sign", "options": {"away": true}}})");
  const at::Tensor weight = random_weight(33, 70, at::kFloat, 1);
  testing::write_model(options.input, {{"towards.weight", weight}, {"away.weight", weight}, {"nearest.weight", weight}});
  const auto source = host.open(options.input);
  const ConvertReport report = run_plan(*source, make_plan(host, *source, options));
  const testing::ModelFile out = testing::read_model(options.output);
  const at::Tensor ratio = weight.div(scale_of(weight));
  EXPECT_TRUE(out.tensors.at("towards.weight").equal(ratio.trunc().to(at::kChar)));
  EXPECT_TRUE(out.tensors.at("away.weight").equal(ratio.abs().ceil().mul(ratio.sign()).clamp(-127, 127).to(at::kChar)));
  EXPECT_TRUE(out.tensors.at("nearest.weight").equal(ratio.round().to(at::kChar)));
  EXPECT_TRUE(out.tensors.at("towards.weight_scale").equal(scale_of(weight)));
  ASSERT_EQ(report.layers.size(), 3u);
  for (const LayerReport& layer : report.layers) EXPECT_EQ(layer.quantizer, layer.quality.name == "nearest" ? "rtn" : "acme.sign");
}

TEST_P(OutOfTree, ItsOptionsAreCheckedLikeThoseOfTheBuiltInPlugins) {
  const Host host({GetParam()});
  const testing::TempDir dir;
  ConvertOptions options;
  options.input = dir / "in.safetensors";
  testing::write_model(options.input, {{"l.weight", random_weight(16, 16, at::kFloat, 1)}});
  options.layers.config = parse_layer_config(R"({"l": {"optimizer": "acme.sign", "options": {"away": "yes"}}})");
  const auto source = host.open(options.input);
  try {
    make_plan(host, *source, options);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error_kind_name(error.kind()), "input");
    EXPECT_NE(std::string(error.what()).find("acme.sign option 'away' is 'yes'; allowed: true or false"), std::string::npos)
        << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(BuildTree, OutOfTree, ::testing::Values(QMILL_ACME_PLUGINS));
INSTANTIATE_TEST_SUITE_P(BuiltAgainstAnInstallation, OutOfTree, ::testing::Values(QMILL_INSTALLED_ACME_PLUGINS));
INSTANTIATE_TEST_SUITE_P(Installed, OutOfTree, ::testing::Values(QMILL_INSTALLED_PLUGINS));

}  // namespace
}  // namespace qmill
