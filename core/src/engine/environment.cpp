#include <qmill/core/environment.h>

#include <qmill/error.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdlib>
#include <utility>

namespace qmill {
namespace {

template <class Value>
Value variable(const char* name, Value initial, std::initializer_list<std::pair<std::string_view, Value>> allowed) {
  const char* const text = std::getenv(name);
  if (text == nullptr || *text == '\0') return initial;
  std::vector<std::string_view> names;
  for (const auto& [known, value] : allowed) {
    if (known == text) return value;
    names.push_back(known);
  }
  throw Error(ErrorKind::usage, fmt::format("the environment variable {} is '{}'; allowed: {}", name, text, fmt::join(names, ", ")));
}

}  // namespace

Environment read_environment() {
  Environment environment;
  environment.streaming = variable(
      "STREAMING_AGGRESSIVENESS", StreamingMode::balanced,
      {{"conservative", StreamingMode::minimal}, {"balanced", StreamingMode::balanced}, {"aggressive", StreamingMode::aggressive}});
  using Use = MixedHadamard::Use;
  MixedHadamard& mixed = environment.mixed_hadamard;
  mixed.use = variable("ENABLE_MIXED_HADAMARD", Use::automatic, {{"auto", Use::automatic}, {"1", Use::on}, {"0", Use::off}});
  mixed.is_half = variable("MIXED_HADAMARD_DTYPE", false, {{"bfloat16", false}, {"float16", true}});
  if (mixed.use == Use::on || mixed.is_half)
    environment.remarks.push_back(fmt::format("{} is for GPUs: on a CPU Hadamard transforms are computed in F32",
                                              mixed.use == Use::on ? "ENABLE_MIXED_HADAMARD" : "MIXED_HADAMARD_DTYPE"));
  return environment;
}

}  // namespace qmill
