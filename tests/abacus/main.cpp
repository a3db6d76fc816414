// abacus evaluate MODEL EXERCISES             loss and share of right answers
// abacus compare SOURCE QUANTIZED EXERCISES   both, and a few exercises that the quantized model solves
// abacus capture MODEL OUTPUT [ROWS [EXERCISES]]   input rows of every linear layer, as a calibration file; of exercises that the model
//                                                  was trained on, or of these
#include "exercises.h"
#include "model.h"

#include "model_file.h"

#include <fmt/format.h>

#include <cstdio>

namespace abacus {
namespace {

constexpr std::size_t kShown = 6;

Model load(const qmill::Host& host, const std::filesystem::path& file) {
  const auto metadata = host.open(file)->metadata();
  return Model(load_weights(host, file), std::stoul(metadata.at("abacus.heads")));
}

void print_score(const std::string& name, const Score& score) {
  fmt::print("  {:<10} loss {:.5f}, right answers {:.2f} % ({} of {} held-out exercises)\n", name, score.loss, 100 * score.share(),
             score.right, score.exercises);
}

void compare(const qmill::Host& host, const std::string& source, const std::string& quantized, const std::string& file) {
  const std::vector<std::string> exercises = read_exercises(file);
  const Model original = load(host, source);
  const Model other = load(host, quantized);
  print_score("before", original.evaluate(exercises));
  const Score after = other.evaluate(exercises);
  print_score("after", after);
  fmt::print("  {:<10} {:.3e} nats per character\n", "divergence", divergence(original, other, exercises));
  fmt::print("  the quantized model says:\n");
  for (std::size_t i = 0; i < std::min(kShown, exercises.size()); ++i)
    fmt::print("    {}{}\n", readable(after.answers[i]),
               after.answers[i] == exercises[i] ? "" : fmt::format("   (wrong: {})", readable(exercises[i])));
}

void capture(const qmill::Host& host, const std::string& file, const std::string& output, std::int64_t rows,
             std::vector<std::string> exercises) {
  if (exercises.empty()) exercises = training_exercises(static_cast<std::size_t>(rows) / (kLength - 1) + 1, 1);
  std::vector<qmill::testing::NamedTensor> tensors;
  for (auto& [layer, input] : capture_inputs(load(host, file), exercises, rows)) tensors.push_back({layer + ".input", input});
  qmill::testing::write_model(output, tensors);
  fmt::print("{}: {} rows of each of {} layers\n", output, tensors.front().data.size(0), tensors.size());
}

int run(const std::vector<std::string>& words) {
  const qmill::Host host;
  if (words.size() == 3 && words[0] == "evaluate") {
    print_score("score", load(host, words[1]).evaluate(read_exercises(words[2])));
  } else if (words.size() == 4 && words[0] == "compare") {
    compare(host, words[1], words[2], words[3]);
  } else if (words.size() >= 3 && words.size() <= 5 && words[0] == "capture") {
    capture(host, words[1], words[2], words.size() > 3 ? std::stol(words[3]) : 10000,
            words.size() > 4 ? read_exercises(words[4]) : std::vector<std::string>());
  } else {
    fmt::print(stderr, "abacus evaluate MODEL EXERCISES | compare SOURCE QUANTIZED EXERCISES | capture MODEL OUTPUT [ROWS [EXERCISES]]\n");
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace abacus

int main(int argc, char** argv) {
  try {
    return abacus::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    fmt::print(stderr, "abacus: error: {}\n", error.what());
    return 1;
  }
}
