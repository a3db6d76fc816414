// The two ways into a conversion, flags and keyword arguments, give the same file, byte for byte: metadata included.
#include "core_support.h"
#include "run_words.h"

#include <qmill/compat/convert_to_int8.h>
#include <qmill/core/option_table.h>

#include <gmock/gmock.h>

#include <algorithm>
#include <set>

namespace qmill {
namespace {

using testing::random_weight;
using Texts = std::vector<std::pair<std::string, std::string>>;  // option, value as text; FOLDER stands for the folder of the files
using Field = std::function<void(ConvertToInt8Options&)>;

// A value that is not the default, what else it needs, and the documented parameter that says the same, if there is one.
struct Case {
  std::string value;
  Texts beside = {};
  Field field = {};
};

const Texts kRows = {{"calibration_data", "FOLDER/rows.safetensors"}};
const Texts kGptq = {{"optimizer", "gptq"}, {"calibration_data", "FOLDER/rows.safetensors"}};
const Texts kQuip = {{"optimizer", "quip"}, {"calibration_data", "FOLDER/rows.safetensors"}};
const Texts kLegacy = {{"comfy_quant", "off"}};
const Texts kCustom = {{"custom_layers", "^b"}, {"custom_type", "int8"}};
const Texts kFallback = {{"exclude_layers", "^b"}, {"fallback", "int8"}};
const Texts kLora = {{"merge_lora", "FOLDER/lora.safetensors"}};
const Texts kLearned = {{"optimizer", "learned_rounding"}, {"num_iter", "4"}};

std::map<std::string, Case> cases() {
  std::map<std::string, Case> cases = {
      {"comfy_quant", {"off", {}, [](auto& o) { o.comfy_quant = false; }}},
      {"save_quant_metadata", {"off", {}, [](auto& o) { o.save_quant_metadata = false; }}},
      {"full_precision_matrix_mult", {"on", {}, [](auto& o) { o.full_precision_matrix_mult = true; }}},
      {"input_scale", {"on", kLegacy, [](auto& o) { o.include_input_scale = true; }}},
      {"static_activations", {"on", {{"comfy_quant", "off"}, {"calibration_data", "FOLDER/scales.json"}}}},
      {"no_normalize_scales", {"on", {{"comfy_quant", "off"}, {"scaling_mode", "tensor"}}}},
      {"dequantize_source", {"on"}},
      {"rename", {"on"}},
      {"target", {"any"}},
      {"keep_dtype", {"f16", {{"exclude_layers", "^b"}}}},
      {"max_shard_size", {"5GB"}},
      {"fp16_overflow", {"clamp", {{"format", "fp16"}}}},
      {"format", {"int4"}},
      {"int8", {"on"}},
      {"fp16", {"on", {}, [](auto& o) { o.fp16 = true; }}},
      {"scaling_mode", {"tensor"}},
      {"block_size", {"32"}},
      {"convrot", {"64"}},
      {"optimizer", {"quip"}},
      {"simple", {"on"}},
      {"no_learned_rounding", {"on", {}, [](auto& o) { o.no_learned_rounding = true; }}},
      {"manual_seed", {"7", kQuip, [](auto& o) { o.seed = 7; }}},
      {"calibration_data", {"FOLDER/rows.safetensors"}},
      {"calib_samples", {"40", kRows, [](auto& o) { o.calib_samples = 40; }}},
      {"calibration_lora", {"FOLDER/lora.safetensors"}},
      {"bias_correction", {"off", kRows}},
      {"smoothquant", {"on", {{"calibration_data", "FOLDER/channels.safetensors"}}, [](auto& o) { o.smoothquant = true; }}},
      {"smoothquant_alpha",
       {"0.7", {{"calibration_data", "FOLDER/channels.safetensors"}, {"smoothquant", "on"}}, [](auto& o) { o.smoothquant_alpha = 0.7; }}},
      {"merge_lora", {"FOLDER/lora.safetensors"}},
      {"merge_loras", {"FOLDER/lora.safetensors"}},
      {"merge_lora_scale", {"0.5", kLora, [](auto& o) { o.merge_lora_scale = 0.5; }}},
      {"merge_lora_dampen", {"off", kLora, [](auto& o) { o.merge_lora_dampen = false; }}},
      {"merge_lora_partial", {"on", kLora}},
      {"merge_lora_skip_mismatched", {"on", kLora}},
      {"filter", {"t5xxl"}},
      {"t5xxl", {"on"}},
      {"exclude_layers", {"^b", {}, [](auto& o) { o.exclude_layers = "^b"; }}},
      {"fallback", {"fp16", {{"exclude_layers", "^b"}}, [](auto& o) { o.fallback = "fp16"; }}},
      {"fallback_block_size", {"16", kFallback, [](auto& o) { o.fallback_block_size = 16; }}},
      {"fallback_simple", {"on", kFallback, [](auto& o) { o.fallback_simple = true; }}},
      {"embeddings", {"fp8", {{"target", "any"}}}},
      {"custom_layers", {"^b", {{"custom_type", "fp16"}}, [](auto& o) { o.custom_layers = "^b"; }}},
      {"custom_type", {"fp16", {{"custom_layers", "^b"}}, [](auto& o) { o.custom_type = "fp16"; }}},
      {"custom_block_size", {"16", kCustom, [](auto& o) { o.custom_block_size = 16; }}},
      {"custom_scaling_mode", {"tensor", kCustom, [](auto& o) { o.custom_scaling_mode = "tensor"; }}},
      {"custom_simple", {"on", kCustom, [](auto& o) { o.custom_simple = true; }}},
      {"custom_heur", {"on", kCustom, [](auto& o) { o.custom_heur = true; }}},
      {"heur", {"on", {}, [](auto& o) { o.skip_inefficient_layers = true; }}},
      {"layer_config", {"FOLDER/layers.json"}},
      {"fullmatch", {"on", {{"layer_config", "FOLDER/layers.json"}}, [](auto& o) { o.layer_config_fullmatch = true; }}},
      {"quality_threshold", {"45", {{"heur", "on"}}, [](auto& o) { o.quality_threshold = 45; }}},
      {"gptq_actorder", {"on", kGptq, [](auto& o) { o.gptq_actorder = true; }}},
      {"gptq_fast", {"off", kGptq, [](auto& o) { o.gptq_fast = false; }}},
      {"gptq_turbo", {"on", kGptq, [](auto& o) { o.gptq_turbo = true; }}},
      {"quip_actorder", {"off", kQuip, [](auto& o) { o.quip_actorder = false; }}},
      {"quip_hadamard", {"off", kQuip, [](auto& o) { o.quip_hadamard = false; }}},
      {"quip_seed", {"5", kQuip, [](auto& o) { o.quip_seed = 5; }}},
      {"quip_store_transformed", {"on", kQuip, [](auto& o) { o.quip_store_transformed = true; }}},
      {"quip_requant_scheme", {"block", kQuip, [](auto& o) { o.quip_requant_scheme = "block"; }}},
      {"quip_requant_tensor_per_row", {"off", kQuip, [](auto& o) { o.quip_requant_tensor_per_row = false; }}},
      {"quip_checkpointed", {"on", kQuip, [](auto& o) { o.quip_checkpointed = true; }}},
      {"quip_checkpoint_threshold", {"32", kQuip, [](auto& o) { o.quip_checkpoint_threshold = 32; }}},
      {"quip_checkpoint_segments", {"2", kQuip, [](auto& o) { o.quip_checkpoint_segments = 2; }}},
      {"damping", {"0.02", kGptq}},
      {"scale_search", {"mse", kGptq}},
      {"num_iter", {"5", {{"optimizer", "learned_rounding"}}}},
  };
  return cases;
}

// A value of an option of the quantizers that is not its default.
std::string other_value(const OptionSpec& option) {
  if (const auto* flag = std::get_if<bool>(&option.initial)) return *flag ? "off" : "on";
  for (const std::string& choice : option.choices)
    if (OptionValue(choice) != option.initial) return choice;
  if (const auto* number = std::get_if<std::int64_t>(&option.initial))
    return std::to_string(static_cast<double>(*number + 1) <= option.at_most ? *number + 1 : *number - 1);
  if (const auto* number = std::get_if<double>(&option.initial)) {
    const double half = *number / 2, twice = *number == 0 ? 0.5 : *number * 2;
    return option_text(half >= option.at_least && half != *number ? half : twice);
  }
  return "auto";
}

class TwoWays : public ::testing::Test {
 protected:
  TwoWays() {
    testing::write_model(dir_ / "model.safetensors", {{"a.weight", random_weight(64, 256, at::kBFloat16, 1)},
                                                      {"a.bias", random_weight(1, 64, at::kBFloat16, 2).view({64})},
                                                      {"b.weight", random_weight(32, 128, at::kBFloat16, 3)},
                                                      {"shared.weight", random_weight(8, 64, at::kBFloat16, 4)}});
    testing::write_model(dir_ / "rows.safetensors", {{"a.input", random_weight(60, 256, at::kFloat, 5)}});
    testing::write_model(dir_ / "channels.safetensors", {{"a.channel_max", random_weight(1, 256, at::kFloat, 6).abs().view({256})}});
    testing::write_model(dir_ / "lora.safetensors", {{"a.lora_A.weight", random_weight(4, 256, at::kFloat, 7)},
                                                     {"a.lora_B.weight", random_weight(64, 4, at::kFloat, 8)}});
    testing::write_bytes(dir_ / "scales.json", R"({"a": 0.25, "b": 0.5})");
    testing::write_bytes(dir_ / "layers.json", R"({"a": {"scaling_mode": "tensor"}})");
  }

  std::string path(const std::string& name) const { return (dir_ / name).string(); }

  std::string in_folder(std::string text) const {
    const std::string word = "FOLDER";
    if (text.starts_with(word)) text.replace(0, word.size(), dir_.path().string());
    return text;
  }

  std::string by_flags(const Texts& options) {
    std::vector<std::string> words = {"convert", "--input=" + path("model.safetensors"), "--output=" + path("flags.safetensors"),
                                      "--overwrite", "--no-sync",  "--verbose=MINIMAL"};
    // Keyword arguments filter nothing unless they say so.
    if (std::none_of(options.begin(), options.end(), [](const auto& each) { return each.first == "filter" || each.first == "t5xxl"; }))
      words.emplace_back("--filter=none");
    for (const auto& [name, value] : options) {
      std::string flag = name;
      std::replace(flag.begin(), flag.end(), '_', '-');
      const bool is_switch = value == "on" || (value == "off" && flag != "convrot" && flag != "scale-search");
      words.push_back(!is_switch ? "--" + flag + "=" + in_folder(value) : value == "on" ? "--" + flag : "--no-" + flag);
    }
    ::testing::internal::CaptureStderr();
    const int status = app::run_words(words);
    const std::string error = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(status, 0) << error;
    return status == 0 ? testing::read_bytes(path("flags.safetensors")) : "";
  }

  // As keyword arguments, each of its own type.
  std::string by_keywords(const Texts& options, const Field& field) {
    ConvertToInt8Options call;
    call.input_file = path("model.safetensors");
    call.output_file = path("keywords.safetensors");
    call.save_quant_metadata = true;  // the function's default is not the command's
    const OptionTable table(testing::host());
    for (const auto& [name, value] : options) {
      const OptionSpec& spec = table.find(name)->spec;
      OptionValue& typed = call.converter_kwargs[name];
      if (std::holds_alternative<bool>(spec.initial))
        typed = value == "on";
      else if (std::holds_alternative<std::int64_t>(spec.initial))
        typed = static_cast<std::int64_t>(std::stoll(value));
      else if (std::holds_alternative<double>(spec.initial))
        typed = std::stod(value);
      else
        typed = in_folder(value);
      if (name == "save_quant_metadata") call.converter_kwargs.erase(name), call.save_quant_metadata = value == "on";
    }
    if (field) field(call);
    ::testing::internal::CaptureStderr();
    try {
      convert_to_int8(testing::host(), call);
    } catch (const Error& error) {
      ADD_FAILURE() << error.what();
    }
    ::testing::internal::GetCapturedStderr();
    return testing::read_bytes(path("keywords.safetensors"));
  }

  testing::TempDir dir_;
};

TEST_F(TwoWays, GiveTheSameFileForEveryOptionThatChangesBytes) {
  const std::map<std::string, Case> known = cases();
  std::set<std::string> seen;
  const OptionTable table(testing::host());
  for (const OptionRow& row : table.rows()) {
    const std::string& name = row.spec.name;
    if (!row.changes_bytes || (row.is_filter && name != "t5xxl")) continue;  // filters are all of one kind
    SCOPED_TRACE(name);
    Case each;
    if (const auto found = known.find(name); found != known.end()) {
      each = found->second;
    } else {
      ASSERT_FALSE(row.sets.empty()) << "an option that changes bytes has no case here";
      each.value = other_value(row.spec);
      each.beside = {{"optimizer", row.sets.front().first->info().name}};
      if (row.sets.front().first->info().uses_calibration) each.beside.push_back(kRows.front());
      if (table.find("num_iter") != nullptr && name != "num_iter" && row.sets.front().first->info().name == kLearned.front().second)
        each.beside.push_back(kLearned.back());
    }
    Texts options = each.beside;
    options.emplace_back(name, each.value);
    const std::string flags = by_flags(options);
    EXPECT_EQ(flags, by_keywords(options, {})) << "as keyword arguments";
    if (each.field) {
      EXPECT_EQ(flags, by_keywords(each.beside, each.field)) << "as the documented parameter";
    }
    seen.insert(name);
  }
  for (const auto& [name, each] : known) EXPECT_TRUE(seen.contains(name)) << name << " is no option";
  EXPECT_GE(seen.size(), 60u);
}

TEST_F(TwoWays, RecordWhatChangesBytesByOneName) {
  const auto options = [&](const Texts& texts) {
    by_flags(texts);
    return testing::read_model(path("flags.safetensors")).metadata.at("qmill.options");
  };
  EXPECT_EQ(options({}), "{}");
  EXPECT_EQ(options({{"scaling_mode", "tensor"}}), R"({"scaling-mode":"tensor"})");
  EXPECT_EQ(options({{"comfy_quant", "off"}, {"scaling_mode", "tensor"}, {"no_normalize_scales", "on"}}),
            R"({"comfy-quant":"off","no-normalize-scales":"on","scaling-mode":"tensor"})");
  EXPECT_EQ(options({{"comfy_quant", "off"}, {"static_activations", "on"}, {"calibration_data", "FOLDER/scales.json"}}),
            R"({"calibration-data":"scales.json","comfy-quant":"off","static-activations":"on"})");
  EXPECT_EQ(options({{"threads", "1"}}), "{}") << "no byte depends on it";
}

TEST_F(TwoWays, RefuseAnOptionOfAQuantizerThatDoesNotRun) {
  const auto refused = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {"convert", "--input=" + path("model.safetensors"), "--output=" + path("flags.safetensors")};
    words.insert(words.end(), more.begin(), more.end());
    ::testing::internal::CaptureStderr();
    const int status = app::run_words(words);
    const std::string error = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(status, 2) << error;
    return error;
  };
  EXPECT_THAT(refused({"--optimizer=rtn", "--damping=nonsense"}), ::testing::HasSubstr("--damping"));
  EXPECT_THAT(refused({"--optimizer=rtn", "--damping=0.01"}), ::testing::HasSubstr("--optimizer is 'rtn'"));
  EXPECT_THAT(refused({"--optimizer=gptq", "--quip-seed=3"}), ::testing::HasSubstr("an option of 'quip'"));
  testing::expect_error(ErrorKind::usage, {"quip_seed", "'quip'", "gptq"}, [&] {
    ConvertToInt8Options call;
    call.input_file = path("model.safetensors");
    call.output_file = path("keywords.safetensors");
    call.converter_kwargs["optimizer"] = std::string("gptq");
    call.quip_seed = 3;
    convert_to_int8(testing::host(), call);
  });
}

}  // namespace
}  // namespace qmill
