// Arithmetic as text, for the model in tests/data/abacus (its README has the format).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace abacus {

inline constexpr std::size_t kPromptLength = 8;
inline constexpr std::size_t kAnswerLength = 4;
inline constexpr std::size_t kLength = kPromptLength + kAnswerLength;

// One exercise a line; throws std::runtime_error for a line that is not one.
std::vector<std::string> read_exercises(const std::filesystem::path& file);

// The pairs of operands that the model never saw. `operation` is '+', '-' or '*'.
bool is_held_out(char operation, int a, int b);

// "347+085=0432".
std::string write_exercise(char operation, int a, int b);

// Exercises that may have been trained on, by a generator of its own: none is held out, the same seed gives the same ones.
std::vector<std::string> training_exercises(std::size_t count, std::uint64_t seed);

// "347 + 85 = 432": for people.
std::string readable(const std::string& exercise);

}  // namespace abacus
