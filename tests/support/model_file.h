// Safetensors files for tests, written and read independently of the code under test.
#pragma once

#include <qmill/tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace qmill::testing {

struct NamedTensor {
  std::string name;
  at::Tensor data;
};

// Writes the tensors in this order.
void write_model(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                 const std::map<std::string, std::string>& metadata = {});

// A header as given, then `data_bytes` zero bytes as a hole: big models that take no disk.
void write_sparse_model(const std::filesystem::path& path, const std::vector<TensorInfo>& tensors,
                        const std::map<std::string, std::string>& metadata = {});

struct ModelFile {
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::string> metadata;
  std::vector<std::string> order;  // names by offset
};

ModelFile read_model(const std::filesystem::path& path);

std::string read_bytes(const std::filesystem::path& path);
void write_bytes(const std::filesystem::path& path, std::string_view bytes);

// Normal random values with this seed, cast to `dtype`.
at::Tensor random_weight(std::int64_t rows, std::int64_t columns, at::ScalarType dtype, std::uint64_t seed);

}  // namespace qmill::testing
