#include <qmill/core/model_identity.h>

#include "io/hash.h"
#include "io/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace qmill {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kSampledTensors = 64;
constexpr std::uint64_t kSampleBytes = 256;  // from the middle: the first and last rows may be padding

std::string hash_of(const std::string& text) { return hash_text(std::as_bytes(std::span(text))); }

std::string part(const Json& identity, const char* key) {
  const auto found = identity.find(key);
  return found == identity.end() || !found->is_string() ? std::string() : found->get<std::string>();
}

}  // namespace

std::string model_identity(const TensorSource& source) {
  const std::vector<TensorInfo>& tensors = source.tensors();
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return tensors[a].name < tensors[b].name; });

  std::string header, samples;
  for (const std::size_t i : order)
    header += fmt::format("{} {} {}\n", tensors[i].name, dtype_name(tensors[i].dtype), tensors[i].shape_text());
  const std::size_t count = std::min(kSampledTensors, order.size());
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t tensor = order[order.size() * i / count];
    const auto size = static_cast<std::uint64_t>(tensors[tensor].bytes());
    bytes.resize(static_cast<std::size_t>(std::min(kSampleBytes, size)));
    source.read_part(tensor, (size - bytes.size()) / 2, bytes);
    samples += hash_text(bytes);
  }
  return Json{{"tensors", hash_of(header)}, {"samples", hash_of(samples)}}.dump();
}

std::string identity_difference(const std::string& recorded, const std::string& found) {
  const Json of_recorded = Json::parse(recorded, nullptr, false);
  const Json of_found = Json::parse(found, nullptr, false);
  if (part(of_recorded, "tensors") != part(of_found, "tensors")) return "its tensors have other names, types or shapes";
  if (part(of_recorded, "samples") != part(of_found, "samples")) return "its tensors hold other values";
  return {};
}

}  // namespace qmill
