#include "model.h"

#include "exercises.h"

#include <qmill/core/stored_layers.h>
#include <qmill/error.h>
#include <qmill/tensor.h>

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/triu.h>
#include <ATen/TensorOperators.h>

#include <cmath>
#include <limits>

namespace abacus {
namespace {

constexpr const char* kVocabulary = "0123456789+-*=";

at::Tensor read_tensor(const qmill::TensorSource& source, std::size_t index) {
  const qmill::TensorInfo& info = source.tensors()[index];
  at::Tensor tensor = at::empty(info.shape, at::TensorOptions().dtype(qmill::scalar_type(info.dtype)));
  source.read(index, {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()});
  return tensor;
}

}  // namespace

Weights load_weights(const qmill::Host& host, const std::filesystem::path& file) {
  const std::unique_ptr<qmill::TensorSource> source = host.open(file);
  std::map<std::string, at::Tensor> stored;
  for (std::size_t i = 0; i < source->tensors().size(); ++i) stored[source->tensors()[i].name] = read_tensor(*source, i);
  Weights weights;
  for (const auto& [name, tensor] : stored)
    if (qmill::is_floating(qmill::dtype_of(tensor))) weights[name] = tensor.to(at::kFloat);
  for (const qmill::StoredLayerEntry& layer : qmill::stored_layers(host, *source)) {
    if (layer.format == nullptr) continue;
    std::vector<at::Tensor> tensors;
    const qmill::TensorInfo original = layer.format->original(layer.info, layer.layout);
    for (const qmill::TensorInfo& output : layer.format->outputs(original, layer.layout)) tensors.push_back(stored.at(output.name));
    at::Tensor decoded = at::empty(original.shape, at::kFloat);
    layer.format->decode_rows(tensors, layer.layout, 0, decoded.size(0), decoded.mutable_data_ptr<float>());
    weights[layer.info.weight.name] = decoded;
  }
  return weights;
}

Model::Model(Weights weights, std::size_t heads) : weights_(std::move(weights)), heads_(static_cast<std::int64_t>(heads)) {
  while (weights_.contains("blocks." + std::to_string(blocks_) + ".norm1.weight")) ++blocks_;
}

at::Tensor Model::linear(const std::string& layer, const at::Tensor& x, const Capture& capture) const {
  if (capture) capture(layer, x.reshape({-1, x.size(-1)}));
  const auto bias = weights_.find(layer + ".bias");
  return at::linear(x, weights_.at(layer + ".weight"), bias == weights_.end() ? at::Tensor() : bias->second);
}

at::Tensor Model::norm(const std::string& name, const at::Tensor& x) const {
  return at::layer_norm(x, {x.size(-1)}, weights_.at(name + ".weight"), weights_.at(name + ".bias"), 1e-5);
}

at::Tensor Model::attention(const std::string& name, const at::Tensor& x, const Capture& capture) const {
  const std::int64_t length = x.size(1);
  const auto per_head = [&](const at::Tensor& y) { return y.view({y.size(0), length, heads_, -1}).transpose(1, 2); };
  const at::Tensor q = per_head(linear(name + ".q", x, capture));
  const at::Tensor k = per_head(linear(name + ".k", x, capture));
  const at::Tensor v = per_head(linear(name + ".v", x, capture));
  const at::Tensor mask = at::triu(at::full({length, length}, -std::numeric_limits<float>::infinity(), at::kFloat), 1);
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(-1)));
  const at::Tensor weights = at::softmax(at::matmul(q, k.transpose(-2, -1)) * scale + mask, -1);
  const at::Tensor joined = at::matmul(weights, v).transpose(1, 2).reshape({x.size(0), length, -1});
  return linear(name + ".out", joined, capture);
}

at::Tensor Model::logits(const at::Tensor& tokens, const Capture& capture) const {
  at::Tensor x =
      at::embedding(weights_.at("token_embedding.weight"), tokens) + weights_.at("position_embedding.weight").slice(0, 0, tokens.size(1));
  for (std::size_t i = 0; i < blocks_; ++i) {
    const std::string block = "blocks." + std::to_string(i);
    x = x + attention(block + ".attention", norm(block + ".norm1", x), capture);
    const at::Tensor hidden = at::gelu(linear(block + ".mlp.up", norm(block + ".norm2", x), capture));
    x = x + linear(block + ".mlp.down", hidden, capture);
  }
  return linear("head", norm("final_norm", x), capture);
}

at::Tensor tokens_of(const std::vector<std::string>& exercises, std::size_t length) {
  at::Tensor tokens = at::empty({static_cast<std::int64_t>(exercises.size()), static_cast<std::int64_t>(length)}, at::kLong);
  auto* out = tokens.mutable_data_ptr<std::int64_t>();
  const std::string vocabulary = kVocabulary;
  for (const std::string& exercise : exercises)
    for (std::size_t i = 0; i < length; ++i) *out++ = static_cast<std::int64_t>(vocabulary.find(exercise.at(i)));
  return tokens;
}

Score Model::evaluate(const std::vector<std::string>& exercises) const {
  constexpr std::size_t kBatch = 500;
  Score score;
  score.exercises = exercises.size();
  double loss = 0;
  for (std::size_t first = 0; first < exercises.size(); first += kBatch) {
    const std::vector<std::string> batch(exercises.begin() + static_cast<std::ptrdiff_t>(first),
                                         exercises.begin() + static_cast<std::ptrdiff_t>(std::min(exercises.size(), first + kBatch)));
    const at::Tensor expected = tokens_of(batch, kLength).slice(1, kPromptLength);
    // Greedy decoding is right exactly if each character is the likeliest after the right ones before it.
    const at::Tensor logits = this->logits(tokens_of(batch, kLength - 1)).slice(1, kPromptLength - 1);
    loss -= at::log_softmax(logits, -1).gather(-1, expected.unsqueeze(-1)).sum(at::kDouble).item<double>();
    const at::Tensor likeliest = logits.argmax(-1).contiguous();
    score.right += static_cast<std::size_t>(likeliest.eq(expected).all(1).sum().item<std::int64_t>());
    const auto* tokens = likeliest.const_data_ptr<std::int64_t>();
    for (std::size_t i = 0; i < batch.size(); ++i) {
      std::string answer = batch[i].substr(0, kPromptLength);
      for (std::size_t j = 0; j < kAnswerLength; ++j) answer += kVocabulary[*tokens++];
      score.answers.push_back(std::move(answer));
    }
  }
  score.loss = loss / static_cast<double>(exercises.size() * kAnswerLength);
  return score;
}

double divergence(const Model& original, const Model& other, const std::vector<std::string>& exercises) {
  const at::Tensor tokens = tokens_of(exercises, kLength - 1);
  const auto predictions = [&](const Model& model) {
    return at::log_softmax(model.logits(tokens).slice(1, kPromptLength - 1).to(at::kDouble), -1);
  };
  const at::Tensor expected = predictions(original);
  return (at::exp(expected) * (expected - predictions(other))).sum().item<double>() / static_cast<double>(exercises.size() * kAnswerLength);
}

std::map<std::string, at::Tensor> capture_inputs(const Model& model, const std::vector<std::string>& exercises, std::int64_t rows) {
  std::map<std::string, at::Tensor> inputs;
  model.logits(tokens_of(exercises, kLength - 1),
               [&](const std::string& layer, const at::Tensor& captured) { inputs[layer] = captured.slice(0, 0, rows).clone(); });
  return inputs;
}

}  // namespace abacus
