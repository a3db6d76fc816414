// Which parts of a model ComfyUI loads quantized, which modules, and under which names.
#include "readers/model_parts.h"
#include "readers/modules.h"
#include "readers/reader_formats.h"

#include "core_support.h"

#include <qmill/core/architecture.h>

#include <gtest/gtest.h>

namespace qmill {
namespace {

std::vector<TensorInfo> tensors_of(const std::vector<std::pair<std::string, std::vector<std::int64_t>>>& named) {
  std::vector<TensorInfo> tensors;
  for (const auto& [name, shape] : named) tensors.push_back({name, DType::bf16, shape});
  return tensors;
}

std::vector<TensorInfo> encoder(const std::string& key, std::int64_t width) { return tensors_of({{key, {width}}}); }

// "yes", "no" or "not known".
std::string loads(const std::vector<TensorInfo>& tensors, std::string_view architecture, std::string_view prefix, std::string_view tensor) {
  const ModelParts parts(tensors, architecture, prefix);
  const ModelPart& part = parts.of(tensor);
  EXPECT_EQ(part.because.empty(), part.loads_quantized == true) << "a reason exactly where it is not loaded for sure";
  return !part.loads_quantized ? "not known" : *part.loads_quantized ? "yes" : "no";
}

TEST(ModelParts, OfACheckpointTheDiffusionModelIsLoadedQuantizedAndClipAndVaeAreNot) {
  const auto sdxl = [](std::string_view name) { return loads({}, "sdxl", "model.diffusion_model.", name); };
  EXPECT_EQ(sdxl("model.diffusion_model.input_blocks.4.1.proj_in.weight"), "yes");
  EXPECT_EQ(sdxl("conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight"), "no");
  EXPECT_EQ(sdxl("conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_fc.weight"), "no");
  EXPECT_EQ(sdxl("first_stage_model.decoder.mid.attn_1.q.weight"), "no");
  EXPECT_EQ(sdxl("model_ema.diffusion_modelinput_blocks41proj_in.weight"), "no");
  EXPECT_EQ(sdxl("something_else.weight"), "no") << "ComfyUI loads nothing else of a checkpoint";
  EXPECT_EQ(loads({}, "sd1", "model.diffusion_model.", "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"), "no");
}

TEST(ModelParts, OfTextEncodersInACheckpointThoseWithMarkersAreLoadedByName) {
  const auto of = [](std::string_view architecture, const std::string& encoder) {
    const std::string name = "text_encoders." + encoder + ".transformer.x.weight";
    return loads(tensors_of({{name, {64, 64}}}), architecture, "model.diffusion_model.", name);
  };
  for (const char* name : {"t5xxl", "umt5xxl", "llama", "gemma2_2b", "gemma3_12b", "qwen25_7b", "qwen3_4b", "mistral3_24b"})
    EXPECT_EQ(of("flux1", name), "yes") << name;
  for (const char* name : {"clip_l", "clip_g", "clip_h", "t5base", "umt5base", "pile_t5xl", "mt5xl", "hydit_clip", "byt5_small"})
    EXPECT_EQ(of("flux1", name), "no") << name;
  EXPECT_EQ(of("flux1", "some_new_one"), "not known");
  EXPECT_EQ(of("pixart_sigma", "t5xxl"), "no") << "its checkpoints are loaded without the markers of T5";
  EXPECT_EQ(of("cogvideox", "t5xxl"), "no");
  for (const char* architecture : {"pixel_dit", "pid"}) EXPECT_EQ(of(architecture, "gemma2_2b"), "no") << architecture;
  EXPECT_EQ(of("hidream", "llama"), "no") << "no text encoder is loaded from its checkpoints";
}

TEST(ModelParts, ATextEncoderInAFileOfItsOwnIsKnownByNamesAndWidth) {
  const std::string t5 = "encoder.block.0.layer.0.layer_norm.weight", llama = "model.layers.0.input_layernorm.weight";
  const auto of = [](const std::vector<TensorInfo>& tensors, std::string_view architecture) {
    return loads(tensors, architecture, "", "any.weight");
  };
  EXPECT_EQ(of(encoder(t5, 4096), "t5xxl"), "yes");
  EXPECT_EQ(of(encoder(t5, 4096), "umt5xxl"), "yes");
  for (const std::int64_t width : {768, 1472, 2048}) EXPECT_EQ(of(encoder(t5, width), "t5"), "no") << width;
  EXPECT_EQ(of(encoder(t5, 256), "t5"), "not known");
  EXPECT_EQ(of(tensors_of({{t5, {1024}}, {"encoder.block.23.layer.1.DenseReluDense.wi.weight", {65536, 1024}}}), "t5"), "yes") << "Cosmos 1";
  EXPECT_EQ(of(encoder(t5, 1024), "t5"), "not known");
  EXPECT_EQ(of(encoder(llama, 2560), "qwen3"), "yes");
  EXPECT_EQ(of(encoder(llama, 256), "qwen3"), "not known");
  EXPECT_EQ(of(encoder("layers.0.input_layernorm.weight", 2560), "qwen3"), "not known") << "ComfyUI looks for another name";
  const std::string nested = "model.language_model.layers.0.input_layernorm.weight";
  for (const char* name : {"mistral3", "ministral3"}) {
    const std::int64_t width = name == std::string_view("mistral3") ? 5120 : 3072;
    EXPECT_EQ(of(encoder(llama, width), name), "yes") << name;
    EXPECT_EQ(of(encoder(nested, width), name), "not known") << name;
  }
  const auto with = [](const std::string& key, std::int64_t width, const std::string& other) {
    return tensors_of({{key, {width}}, {other, {64, 64}}});
  };
  const std::string last = "model.layers.41.self_attn.q_norm.weight";
  EXPECT_EQ(of(with(llama, 2560, last), "gemma4"), "yes");
  EXPECT_EQ(of(encoder(llama, 2560), "gemma4"), "not known") << "ComfyUI tells them apart by the number of layers";
  EXPECT_EQ(of(with(llama, 3840, last), "gemma4"), "not known") << "of this width it has 48";
  EXPECT_EQ(of(with(nested, 2560, last), "gemma4"), "not known");
  const std::string experts = "layers.0.mlp.experts.gate_up_proj";
  EXPECT_EQ(of(with("layers.0.input_layernorm.weight", 2880, experts + ".weight"), "gpt_oss"), "yes");
  EXPECT_EQ(of(with("layers.0.input_layernorm.weight", 2880, experts), "gpt_oss"), "not known");
  EXPECT_EQ(of(with(llama, 2880, "model." + experts + ".weight"), "gpt_oss"), "not known");
  const std::string vision = "model.visual.deepstack_merger_list.0.norm.weight";
  for (const std::int64_t width : {2560, 4096}) {
    EXPECT_EQ(of(with(nested, width, vision), "qwen3_vl"), "yes") << width;
    EXPECT_EQ(of(with(llama, width, vision.substr(6)), "qwen3_vl"), "not known") << width;
  }
  EXPECT_EQ(of(with(llama, 5120, "model.layers.49.self_attn.q_proj.weight"), "qwen3_vl"), "yes");
  EXPECT_EQ(of(with(nested, 5120, vision), "qwen3_vl"), "not known");
  for (const char* clip : {"clip_l", "clip_g", "clip_h", "jina_clip"}) EXPECT_EQ(of({}, clip), "no") << clip;
}

TEST(ModelParts, OtherFilesAreFloatsOnlyEvenIfTheyHaveTheBlocksOfADiffusionModel) {
  const auto of = [](const std::string& name, std::string_view architecture = "") {
    return loads(tensors_of({{name, {64, 64}}}), architecture, "", name);
  };
  EXPECT_EQ(of("controlnet_blocks.0.weight", "flux1"), "no");
  EXPECT_EQ(of("input_hint_block.0.weight", "unet"), "no");
  EXPECT_EQ(of("redux_up.weight"), "no");
  EXPECT_EQ(of("diffusion_model.blocks.0.q.lora_A.weight"), "no");
  EXPECT_EQ(of("lora_unet_blocks_0_q.lora_down.weight"), "no");
  EXPECT_EQ(of("model.encoder.layers.0.pre_self_attn_layernorm.weight"), "no") << "T5Gemma";
  EXPECT_EQ(of("vision_model.encoder.layers.0.mlp.fc1.weight"), "no");
  EXPECT_EQ(of("decoder.conv_in.weight"), "no");
}

TEST(ModelParts, WhatIsNotRecognisedIsNotKnown) {
  EXPECT_EQ(loads(tensors_of({{"a.weight", {64, 64}}}), "", "", "a.weight"), "not known");
  EXPECT_EQ(loads({}, "architecture_of_a_plugin", "", "a.weight"), "not known");
  EXPECT_EQ(loads({}, "flux1", "transformer.", "transformer.img_in.weight"), "not known") << "ComfyUI does not look below this prefix";
  EXPECT_EQ(loads({}, "flux1", "", "img_in.weight"), "yes");
  EXPECT_EQ(loads({}, "flux_diffusers", "", "x_embedder.weight"), "no") << "it is renamed while it is loaded";
}

TEST(ModelParts, EveryArchitectureOfTheFiltersIsJudged) {
  std::size_t count = 0;
  for (const ModelFilter* filter : testing::host().filters())
    for (const Fingerprint& print : filter->fingerprints()) {
      const ModelParts parts({}, print.architecture, "");
      EXPECT_EQ(parts.of("x.weight").because.find("it is not known whether"), std::string::npos) << print.architecture;
      ++count;
    }
  EXPECT_GT(count, 80u);
}

TEST(Modules, TablesAreReadAsFloat8AndInt8AndParametersAreNotReadAtAll) {
  for (const char* name : {"model.embed_tokens", "shared", "text_model.embeddings.token_embedding",
                           "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"})
    EXPECT_EQ(module_kind(name), ModuleKind::embedding) << name;
  for (const char* name : {"llm_adapter.embed", "model.language_model.embed_tokens_per_layer", "wpe"})
    EXPECT_EQ(module_kind(name), ModuleKind::embedding) << name;
  EXPECT_EQ(module_kind("double_stream_blocks.0.block.ff_i.gate"), ModuleKind::parameter);
  EXPECT_EQ(module_kind("motion_encoder.dec.direction"), ModuleKind::parameter);
  for (const char* name : {"img_in", "shared_experts.w1", "blocks.0.gate", "mlp.gate", "pos_embed", "shared.q"})
    EXPECT_EQ(module_kind(name), ModuleKind::linear) << name;
  const auto reads = [](ModuleKind kind, std::string_view format) { return find_reader_format(format)->is_read_in(kind); };
  EXPECT_TRUE(reads(ModuleKind::embedding, "int8_tensorwise"));
  EXPECT_TRUE(reads(ModuleKind::embedding, "float8_e4m3fn"));
  EXPECT_FALSE(reads(ModuleKind::embedding, "convrot_w4a4"));
  EXPECT_TRUE(reads(ModuleKind::linear, "convrot_w4a4"));
  EXPECT_FALSE(reads(ModuleKind::parameter, "int8_tensorwise"));
}

TEST(ReaderFormats, TablesAreReadLaterThanLayers) {
  const auto since = [](ModuleKind kind, std::string_view format) { return find_reader_format(format)->since_in(kind); };
  EXPECT_EQ(since(ModuleKind::linear, "int8_tensorwise"), "0.27.0");
  EXPECT_EQ(since(ModuleKind::embedding, "int8_tensorwise"), "0.30.0");
  EXPECT_EQ(since(ModuleKind::linear, "float8_e4m3fn"), "");
  EXPECT_EQ(since(ModuleKind::embedding, "float8_e4m3fn"), "0.21.0");
  EXPECT_EQ(since(ModuleKind::linear, "mxfp8"), "0.18.0");
  EXPECT_EQ(find_reader_format("awq_w4a16"), nullptr) << "comfy-kitchen has it, ComfyUI does not";
}

TEST(Modules, TablesOfTokensAreToldFromThoseOfPositionsAndKinds) {
  for (const char* name : {"shared", "model.embed_tokens", "model.embed_tokens_per_layer", "llm_adapter.embed",
                           "text_model.embeddings.token_embedding"})
    EXPECT_TRUE(is_token_table(name)) << name;
  for (const char* name : {"text_model.embeddings.position_embedding", "embeddings.token_type_embeddings", "wpe",
                           "encoder.block.0.layer.0.SelfAttention.relative_attention_bias", "lm_head", "img_in"})
    EXPECT_FALSE(is_token_table(name)) << name;
}

}  // namespace
}  // namespace qmill
