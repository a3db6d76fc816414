#include "exercises.h"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <stdexcept>

namespace abacus {
namespace {

int operation_number(char operation) { return operation == '+' ? 0 : operation == '-' ? 1 : 2; }

bool is_exercise(const std::string& line) {
  return line.size() == kLength && line.find_first_not_of("0123456789+-*=") == std::string::npos && line[kPromptLength - 1] == '=';
}

}  // namespace

std::vector<std::string> read_exercises(const std::filesystem::path& file) {
  std::ifstream stream(file);
  if (!stream) throw std::runtime_error("cannot read " + file.string());
  std::vector<std::string> exercises;
  for (std::string line; std::getline(stream, line);) {
    if (!is_exercise(line)) throw std::runtime_error(fmt::format("{}: '{}' is not an exercise", file.string(), line));
    exercises.push_back(line);
  }
  if (exercises.empty()) throw std::runtime_error(file.string() + " has no exercises");
  return exercises;
}

bool is_held_out(char operation, int a, int b) {
  auto hash = static_cast<std::uint32_t>((operation_number(operation) * 1000 + a) * 1000 + b);
  hash = (hash ^ (hash >> 16)) * 0x85ebca6bu;  // the finalizer of MurmurHash3
  hash = (hash ^ (hash >> 13)) * 0xc2b2ae35u;
  hash ^= hash >> 16;
  return hash % 20 == 0;
}

std::string write_exercise(char operation, int a, int b) {
  const std::string prompt = fmt::format("{:03}{}{:03}=", a, operation, b);
  switch (operation) {
    case '+':
      return prompt + fmt::format("{:04}", a + b);
    case '-':
      return prompt + fmt::format("{}{:03}", a < b ? '-' : '+', std::abs(a - b));
    default:
      return prompt + fmt::format("{:04}", a * b);
  }
}

std::vector<std::string> training_exercises(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto below = [&](int bound) { return static_cast<int>(random() % static_cast<std::uint64_t>(bound)); };
  std::vector<std::string> exercises;
  while (exercises.size() < count) {
    const char operation = "+++---*"[below(7)];
    int a = below(1000);
    int b = below(1000);
    if (operation == '*') {
      a %= 100;
      b %= 10;
      if (random() % 2 == 0) std::swap(a, b);
    }
    if (!is_held_out(operation, a, b)) exercises.push_back(write_exercise(operation, a, b));
  }
  return exercises;
}

std::string readable(const std::string& exercise) {
  const int a = std::stoi(exercise.substr(0, 3));
  const int b = std::stoi(exercise.substr(4, 3));
  return fmt::format("{} {} {} = {}", a, exercise[3], b, std::stoi(exercise.substr(kPromptLength)));
}

}  // namespace abacus
