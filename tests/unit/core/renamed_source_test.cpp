// Text encoders under the names that ComfyUI looks for.
#include "model/renamed_source.h"
#include "readers/text_encoder_names.h"

#include "expect_error.h"

#include <qmill/source_details.h>

#include <gtest/gtest.h>

#include <cstring>

namespace qmill {
namespace {

using testing::expect_error;

// Tensors of F32 whose element i has the value i.
class CountingSource final : public TensorSource {
 public:
  CountingSource(std::vector<TensorInfo> tensors, std::map<std::string, std::string> metadata)
      : tensors_(std::move(tensors)), metadata_(std::move(metadata)) {}
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }
  std::vector<std::filesystem::path> files() const override { return {}; }
  void read_part(std::size_t, std::uint64_t begin, std::span<std::byte> out) const override {
    for (std::size_t i = 0; i < out.size(); ++i) {
      const auto value = static_cast<float>((begin + i) / sizeof(float));
      std::memcpy(&out[i], reinterpret_cast<const std::byte*>(&value) + (begin + i) % sizeof(float), 1);
    }
  }
  std::optional<Extent> extent(std::size_t) const override { return Extent{"file", 0, 0}; }

 private:
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

std::unique_ptr<TensorSource> source_of(const std::vector<std::string>& names, std::map<std::string, std::string> metadata = {},
                                        std::vector<std::int64_t> shape = {8, 2}) {
  std::vector<TensorInfo> tensors;
  for (const std::string& name : names) tensors.push_back({name, DType::f32, shape});
  return std::make_unique<CountingSource>(std::move(tensors), std::move(metadata));
}

std::vector<std::string> names_of(const TensorSource& source) {
  std::vector<std::string> names;
  for (const TensorInfo& tensor : source.tensors()) names.push_back(tensor.name);
  return names;
}

using Names = std::vector<std::string>;

TEST(RenamedSource, GivesT5OfLlamaCppItsNames) {
  const auto source =
      renamed(source_of({"token_embd.weight", "enc.output_norm.weight", "enc.blk.0.attn_q.weight", "enc.blk.11.attn_o.weight",
                         "enc.blk.0.attn_rel_b.weight", "enc.blk.0.ffn_gate.weight", "enc.blk.0.ffn_up.weight", "enc.blk.0.ffn_down.weight",
                         "enc.blk.0.ffn_norm.weight", "unknown.weight"}));
  EXPECT_EQ(
      names_of(*source),
      (Names{"shared.weight", "encoder.final_layer_norm.weight", "encoder.block.0.layer.0.SelfAttention.q.weight",
             "encoder.block.11.layer.0.SelfAttention.o.weight", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
             "encoder.block.0.layer.1.DenseReluDense.wi_0.weight", "encoder.block.0.layer.1.DenseReluDense.wi_1.weight",
             "encoder.block.0.layer.1.DenseReluDense.wo.weight", "encoder.block.0.layer.1.layer_norm.weight", "unknown.weight"}));
  EXPECT_EQ(source_remarks(*source), Names{"the tensors are renamed: they had names of llama.cpp (t5), and ComfyUI looks for others"});
}

TEST(RenamedSource, GivesWansT5AndWrappedModelsTheirNames) {
  EXPECT_EQ(
      names_of(*renamed(source_of({"token_embedding.weight", "norm.weight", "blocks.0.attn.q.weight", "blocks.3.ffn.gate.0.weight",
                                   "blocks.0.ffn.gate.0.weight", "blocks.3.ffn.fc1.weight", "blocks.3.pos_embedding.embedding.weight"}))),
      (Names{"shared.weight", "encoder.final_layer_norm.weight", "encoder.block.0.layer.0.SelfAttention.q.weight",
             "encoder.block.3.layer.1.DenseReluDense.wi_0.weight", "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
             "encoder.block.3.layer.1.DenseReluDense.wi_1.weight",
             "encoder.block.3.layer.0.SelfAttention.relative_attention_bias.weight"}));
  EXPECT_EQ(names_of(*renamed(source_of({"language_model.model.layers.0.input_layernorm.weight", "language_model.lm_head.weight"}))),
            (Names{"model.layers.0.input_layernorm.weight", "lm_head.weight"}));
  EXPECT_EQ(names_of(*renamed(source_of({"model.language_model.layers.0.self_attn.q_proj.bias", "model.visual.blocks.0.attn.qkv.weight"}))),
            (Names{"model.layers.0.self_attn.q_proj.bias", "visual.blocks.0.attn.qkv.weight"}));
  EXPECT_EQ(names_of(*renamed(source_of({"model.language_model.layers.0.self_attn.q_proj.weight", "model.vision_tower.patch_conv.weight"}))),
            (Names{"model.layers.0.self_attn.q_proj.weight", "model.vision_tower.patch_conv.weight"}));
}

TEST(RenamedSource, OfQwen3VlItFlattensTheLargestOnly) {
  const Names vision{"model.visual.deepstack_merger_list.0.norm.weight"};
  const auto with_layer = [&](const std::string& layer) {
    Names names = vision;
    names.push_back("model.language_model.layers." + layer + ".self_attn.q_proj.weight");
    return names;
  };
  EXPECT_EQ(names_of(*renamed(source_of(with_layer("49")))),
            (Names{"visual.deepstack_merger_list.0.norm.weight", "model.layers.49.self_attn.q_proj.weight"}));
  EXPECT_EQ(names_of(*renamed(source_of(with_layer("35")))), with_layer("35")) << "ComfyUI finds these by their nested names";
}

TEST(RenamedSource, PutsTheRowsOfLlamaBackInOrder) {
  const auto source =
      renamed(source_of({"token_embd.weight", "blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"},
                        {{"general.architecture", "llama"}, {"llama.attention.head_count", "2"}, {"llama.attention.head_count_kv", "1"}}));
  const auto rows = [&](std::size_t tensor) {
    std::vector<float> values(16);
    source->read(tensor, std::as_writable_bytes(std::span(values)));
    std::vector<int> first;
    for (std::size_t row = 0; row < 8; ++row) {
      EXPECT_EQ(values[2 * row + 1], values[2 * row] + 1);
      first.push_back(static_cast<int>(values[2 * row]) / 2);
    }
    return first;
  };
  EXPECT_EQ(names_of(*source)[1], "model.layers.0.self_attn.q_proj.weight");
  // The original's rows [0 1 2 3] of a head are stored as [0 2 1 3].
  EXPECT_EQ(rows(1), (std::vector<int>{0, 2, 1, 3, 4, 6, 5, 7})) << "two heads of four rows";
  EXPECT_EQ(rows(2), (std::vector<int>{0, 2, 4, 6, 1, 3, 5, 7})) << "one head of eight rows";
  EXPECT_EQ(rows(3), (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7})) << "values are not rotated";
  EXPECT_FALSE(source->extent(1)) << "no bytes of the file are this tensor";
  EXPECT_TRUE(source->extent(3));
  std::vector<std::byte> part(4);
  source->read_part(1, 8 * 1 + 4, part);  // row 1, column 1
  float value;
  std::memcpy(&value, part.data(), sizeof value);
  EXPECT_EQ(value, 5);
}

TEST(RenamedSource, TakesTheNumberOfKeyHeadsFromTheOthersIfItIsNotWritten) {
  const auto source = renamed(source_of({"token_embd.weight", "blk.0.attn_q.weight", "blk.0.attn_k.weight"},
                                        {{"general.architecture", "llama"}, {"llama.attention.head_count", "1"}}));
  std::vector<float> values(16);
  source->read(2, std::as_writable_bytes(std::span(values)));
  EXPECT_EQ(values[2], 4) << "the second row of a head of eight is stored as the third";
}

TEST(RenamedSource, RefusesWhatItCannotMakeRight) {
  const Names llama = {"token_embd.weight", "blk.0.attn_q.weight"};
  expect_error(ErrorKind::unsupported, {"gemma3", "original model"},
               [&] { renamed(source_of(llama, {{"general.architecture", "gemma3"}})); });
  expect_error(ErrorKind::input, {"llama.attention.head_count"}, [&] { renamed(source_of(llama, {{"general.architecture", "llama"}})); });
  expect_error(ErrorKind::input, {"blk.0.attn_q.weight", "3 attention heads"}, [&] {
    renamed(
        source_of(llama, {{"general.architecture", "llama"}, {"llama.attention.head_count", "3"}, {"llama.attention.head_count_kv", "3"}}));
  });
  expect_error(ErrorKind::input, {"blk.0.attn_q.weight", "attention heads"}, [&] {  // twice as many are -2
    renamed(source_of(llama, {{"general.architecture", "llama"}, {"llama.attention.head_count", "9223372036854775807"}}));
  });
  expect_error(ErrorKind::input, {"two tensors", "shared.weight"},
               [&] { renamed(source_of({"enc.blk.0.attn_q.weight", "token_embd.weight", "shared.weight"})); });
  expect_error(ErrorKind::unsupported, {"not quantized"}, [&] { renamed(source_of({"a.comfy_quant"})); });
}

TEST(RenamedSource, LeavesOtherModelsAsTheyAre) {
  const auto source = renamed(source_of({"blocks.0.q.weight"}));
  EXPECT_EQ(names_of(*source), Names{"blocks.0.q.weight"});
  EXPECT_EQ(source_remarks(*source), Names{"`rename` changes nothing: the names are of no text encoder that it knows"});
  EXPECT_FALSE(has_other_names(source->tensors()));
  EXPECT_TRUE(has_other_names(source_of({"enc.blk.0.attn_q.weight"})->tensors()));
}

}  // namespace
}  // namespace qmill
