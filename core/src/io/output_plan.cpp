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

using Json = nlohmann::ordered_json;

Json entry_of(const TensorInfo& tensor, std::uint64_t begin, std::uint64_t end) {
  return {{"dtype", dtype_name(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
}

void add_file(OutputPlan& plan, std::vector<TensorInfo> tensors, const Metadata& metadata) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(-dtype_bits(a.dtype), std::string_view(a.name)) < std::pair(-dtype_bits(b.dtype), std::string_view(b.name));
  });
  Json header = Json::object();
  // An ordered object looks through all of its members to find one: names are known to differ here.
  auto& members = static_cast<Json::object_t::Container&>(header.get_ref<Json::object_t&>());
  if (!metadata.empty()) members.emplace_back("__metadata__", Json(metadata));
  std::vector<PlacedTensor*> placed;
  std::uint64_t offset = 0;
  for (TensorInfo& tensor : tensors) {
    const std::uint64_t end = offset + static_cast<std::uint64_t>(tensor.bytes());
    const auto [place, is_new] = plan.tensors.emplace(tensor.name, PlacedTensor{tensor, plan.files.size(), offset});
    if (!is_new || tensor.name == "__metadata__")
      throw Error(
          ErrorKind::input, fmt::format("the output would have two tensors '{}'", tensor.name),
          "the source has a tensor of that name beside a layer that is quantized; rename it or keep the layer with `exclude_layers`");
    placed.push_back(&place->second);
    members.emplace_back(tensor.name, entry_of(tensor, offset, end));
    offset = end;
  }
  PlannedFile file{framed(header.dump()), 0};
  if (file.header.size() > kMaxHeaderBytes)
    throw Error(ErrorKind::unsupported, fmt::format("the header would have {} bytes, readers take {}", file.header.size(), kMaxHeaderBytes),
                "write several files, with `max_shard_size`");
  for (PlacedTensor* tensor : placed) tensor->offset += file.header.size();
  file.bytes = file.header.size() + offset;
  plan.files.push_back(std::move(file));
}

// With what the header of a file of at most `max_bytes` says of them; at most, as offsets have different numbers of digits.
std::uint64_t bytes_of(const std::vector<TensorInfo>& group, std::uint64_t max_bytes) {
  constexpr std::uint64_t kBetween = 2;  // a colon, a comma
  std::uint64_t bytes = 0;
  for (const TensorInfo& tensor : group)
    bytes += static_cast<std::uint64_t>(tensor.bytes()) + Json(tensor.name).dump().size() + entry_of(tensor, max_bytes, max_bytes).dump().size() +
             kBetween;
  return bytes;
}

}  // namespace

std::uint64_t OutputPlan::bytes() const {
  std::uint64_t bytes = 0;
  for (const PlannedFile& file : files) bytes += file.bytes;
  return bytes;
}

OutputPlan plan_output(std::vector<TensorInfo> tensors, const Metadata& metadata) {
  OutputPlan plan;
  add_file(plan, std::move(tensors), metadata);
  return plan;
}

OutputPlan plan_shards(const std::vector<std::vector<TensorInfo>>& groups, const Metadata& metadata, std::optional<std::uint64_t> max_bytes,
                       std::size_t max_files) {
  const std::uint64_t empty = plan_output({}, metadata).bytes() + kAlignment;
  std::vector<std::vector<TensorInfo>> shards(1);
  std::uint64_t bytes = empty;
  for (const std::vector<TensorInfo>& group : groups) {
    if (max_bytes) {
      const std::uint64_t more = bytes_of(group, *max_bytes);
      if (bytes + more > *max_bytes && !shards.back().empty()) {
        shards.emplace_back();
        bytes = empty;
      }
      bytes += more;
    }
    shards.back().insert(shards.back().end(), group.begin(), group.end());
  }
  if (shards.size() > max_files)
    throw Error(ErrorKind::usage, fmt::format("the output would have {} files, their names can count {}", shards.size(), max_files),
                "choose a larger `max_shard_size`");
  OutputPlan plan;
  for (std::vector<TensorInfo>& shard : shards) add_file(plan, std::move(shard), metadata);
  return plan;
}

std::string shard_index_text(const OutputPlan& plan, const std::vector<std::string>& names) {
  Json map = Json::object();
  auto& members = static_cast<Json::object_t::Container&>(map.get_ref<Json::object_t&>());
  std::uint64_t bytes = 0;
  for (const auto& [name, tensor] : plan.tensors) {
    members.emplace_back(name, names.at(tensor.file));
    bytes += static_cast<std::uint64_t>(tensor.info.bytes());
  }
  return Json{{"metadata", {{"total_size", bytes}}}, {"weight_map", std::move(map)}}.dump(2) + "\n";
}

}  // namespace qmill
