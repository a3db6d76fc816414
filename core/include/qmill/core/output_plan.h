// The exact layout of safetensors files before they are written: order, offsets and headers.
#pragma once

#include <qmill/core/export.h>
#include <qmill/tensor_info.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace qmill {

// Where a tensor of the output lies.
struct PlacedTensor {
  TensorInfo info;
  std::size_t file = 0;      // in OutputPlan::files
  std::uint64_t offset = 0;  // in the file
};

struct PlannedFile {
  std::string header;  // the first bytes of the file: length and JSON
  std::uint64_t bytes = 0;
};

// One file, or shards that an index describes.
struct OutputPlan {
  std::vector<PlannedFile> files;
  std::map<std::string, PlacedTensor> tensors;  // by name

  bool has_shards() const { return files.size() > 1; }
  QMILL_CORE_API std::uint64_t bytes() const;  // of all files, without the index
};

using Metadata = std::map<std::string, std::string>;

// One file. Tensors by descending element size, then name, so that each is aligned. Throws Error(input) when a name is there twice, or the
// header is larger than readers take.
QMILL_CORE_API OutputPlan plan_output(std::vector<TensorInfo> tensors, const Metadata& metadata);

// As few files as it takes in this order, none above `max_bytes` (nothing: one file) unless one group alone is. The tensors of a group stay
// together; every file has the metadata. Throws what plan_output() throws, and Error(usage) for more than `max_files`.
QMILL_CORE_API OutputPlan plan_shards(const std::vector<std::vector<TensorInfo>>& groups, const Metadata& metadata,
                                      std::optional<std::uint64_t> max_bytes, std::size_t max_files);

// The index of the shards, whose file names are `names`, in order: as transformers and diffusers write it.
QMILL_CORE_API std::string shard_index_text(const OutputPlan& plan, const std::vector<std::string>& names);

}  // namespace qmill
