#include "model_file.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/randn.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <fstream>
#include <stdexcept>

namespace qmill::testing {
namespace {

std::string header_text(const std::vector<TensorInfo>& tensors, const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::int64_t offset = 0;
  for (const TensorInfo& tensor : tensors) {
    header[tensor.name] = {
        {"dtype", dtype_name(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + tensor.bytes()}}};
    offset += tensor.bytes();
  }
  const std::string json = header.dump();
  std::string text(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) text[i] = static_cast<char>(json.size() >> (8 * i) & 0xff);
  return text + json;
}

}  // namespace

void write_model(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                 const std::map<std::string, std::string>& metadata) {
  std::vector<TensorInfo> infos;
  for (const NamedTensor& tensor : tensors) infos.push_back(info_of({tensor.name, tensor.data}));
  std::ofstream file(path, std::ios::binary);
  file << header_text(infos, metadata);
  for (const NamedTensor& tensor : tensors) {
    const at::Tensor data = tensor.data.contiguous();
    file.write(static_cast<const char*>(data.const_data_ptr()), static_cast<std::streamsize>(data.nbytes()));
  }
  if (!file) throw std::runtime_error("cannot write " + path.string());
}

void write_sparse_model(const std::filesystem::path& path, const std::vector<TensorInfo>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::int64_t bytes = 0;
  for (const TensorInfo& tensor : tensors) bytes += tensor.bytes();
  const std::string header = header_text(tensors, metadata);
  write_bytes(path, header);
  std::filesystem::resize_file(path, header.size() + static_cast<std::uint64_t>(bytes));
}

ModelFile read_model(const std::filesystem::path& path) {
  const std::string bytes = read_bytes(path);
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(bytes.at(i));
  const auto header = nlohmann::json::parse(bytes.substr(8, length));
  ModelFile model;
  std::vector<std::pair<std::uint64_t, std::string>> offsets;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      model.metadata = entry.get<std::map<std::string, std::string>>();
      continue;
    }
    const std::uint64_t begin = entry["data_offsets"][0];
    const std::uint64_t end = entry["data_offsets"][1];
    std::string data = bytes.substr(8 + length + begin, end - begin);
    const auto options = at::TensorOptions().dtype(scalar_type(parse_dtype(entry["dtype"].get<std::string>()).value()));
    model.tensors[name] = at::from_blob(data.data(), entry["shape"].get<std::vector<std::int64_t>>(), options).clone();
    offsets.emplace_back(begin, name);
  }
  std::stable_sort(offsets.begin(), offsets.end());
  for (const auto& [offset, name] : offsets) model.order.push_back(name);
  return model;
}

std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_bytes(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file) throw std::runtime_error("cannot write " + path.string());
}

at::Tensor random_weight(std::int64_t rows, std::int64_t columns, at::ScalarType dtype, std::uint64_t seed) {
  return at::randn({rows, columns}, at::make_generator<at::CPUGeneratorImpl>(seed), at::kFloat).to(dtype);
}

}  // namespace qmill::testing
