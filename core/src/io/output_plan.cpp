#include <qmill/core/output_plan.h>

#include <qmill/error.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace qmill {
namespace {

constexpr std::size_t kMaxHeaderBytes = 100'000'000;
constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kAlignment = 8;  // the largest element

std::string framed(std::string json) {
  json.resize((json.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  std::string header;
  for (std::size_t i = 0; i < kLengthBytes; ++i) header += static_cast<char>(json.size() >> (8 * i) & 0xff);
  return header + json;
}

}  // namespace

OutputPlan plan_output(std::vector<TensorInfo> tensors, const std::map<std::string, std::string>& metadata) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(-dtype_bits(a.dtype), std::string_view(a.name)) < std::pair(-dtype_bits(b.dtype), std::string_view(b.name));
  });
  using Json = nlohmann::ordered_json;
  Json header = Json::object();
  // An ordered object looks through all of its members to find one: names are known to differ here.
  auto& members = static_cast<Json::object_t::Container&>(header.get_ref<Json::object_t&>());
  if (!metadata.empty()) members.emplace_back("__metadata__", Json(metadata));
  OutputPlan plan;
  std::uint64_t offset = 0;
  for (TensorInfo& tensor : tensors) {
    const std::uint64_t end = offset + static_cast<std::uint64_t>(tensor.bytes());
    if (!plan.tensors.emplace(tensor.name, PlacedTensor{tensor, offset}).second || tensor.name == "__metadata__")
      throw Error(
          ErrorKind::input, fmt::format("the output would have two tensors '{}'", tensor.name),
          "the source has a tensor of that name beside a layer that is quantized; rename it or keep the layer with `exclude_layers`");
    members.emplace_back(tensor.name, Json{{"dtype", dtype_name(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}});
    offset = end;
  }
  plan.header = framed(header.dump());
  if (plan.header.size() > kMaxHeaderBytes)
    throw Error(ErrorKind::unsupported,
                fmt::format("the header would have {} bytes, readers take {}", plan.header.size(), kMaxHeaderBytes));
  for (auto& [name, tensor] : plan.tensors) tensor.offset += plan.header.size();
  plan.file_bytes = plan.header.size() + offset;
  return plan;
}

}  // namespace qmill
