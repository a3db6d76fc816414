// The model itself, run with LibTorch in F32, from plain or quantized files.
#pragma once

#include <qmill/core/host.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace abacus {

// Weights by name as F32 in their original basis, as a reader decodes them.
using Weights = std::map<std::string, at::Tensor>;

Weights load_weights(const qmill::Host& host, const std::filesystem::path& file);

struct Score {
  double loss = 0;        // mean cross entropy of the answers' characters
  std::size_t right = 0;  // exercises whose whole answer is right
  std::size_t exercises = 0;
  std::vector<std::string> answers;  // greedy, one per exercise

  double share() const { return static_cast<double>(right) / static_cast<double>(exercises); }
};

// Called with a linear layer's name ("blocks.0.mlp.up") and its input rows [T,K], F32.
using Capture = std::function<void(const std::string& layer, const at::Tensor& rows)>;

class Model {
 public:
  // Throws std::out_of_range for a tensor that is missing.
  Model(Weights weights, std::size_t heads);

  // Logits [B,L,V] for token ids [B,L].
  at::Tensor logits(const at::Tensor& tokens, const Capture& capture = {}) const;

  Score evaluate(const std::vector<std::string>& exercises) const;

 private:
  at::Tensor linear(const std::string& layer, const at::Tensor& x, const Capture& capture) const;
  at::Tensor norm(const std::string& name, const at::Tensor& x) const;
  at::Tensor attention(const std::string& name, const at::Tensor& x, const Capture& capture) const;

  Weights weights_;
  std::int64_t heads_;
  std::size_t blocks_ = 0;
};

// Token ids [B,L] of the first `length` characters.
at::Tensor tokens_of(const std::vector<std::string>& exercises, std::size_t length);

// Mean Kullback-Leibler divergence, in nats per character of an answer, of what `other` predicts from what `original` does. Where the
// loss of a small change drowns in the few exercises that decide it, this is exact to many digits.
double divergence(const Model& original, const Model& other, const std::vector<std::string>& exercises);

// Input rows of every linear layer over these exercises: at most `rows` per layer, [T,K].
std::map<std::string, at::Tensor> capture_inputs(const Model& model, const std::vector<std::string>& exercises, std::int64_t rows);

}  // namespace abacus
