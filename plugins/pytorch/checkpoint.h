// From what a pickle describes to named tensors.
#pragma once

#include "pickle.h"
#include "zip.h"

#include <qmill/tensor_info.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace pytorch {

// A tensor at its place in the file.
struct StoredView {
  qmill::TensorInfo info;
  std::uint64_t offset = 0;           // of its first value, in the file
  std::uint64_t span_bytes = 0;       // from there to the end of its last value; 0: it has no values
  std::vector<std::int64_t> strides;  // in values
  bool is_contiguous = true;          // the span is the row-major tensor
};

// The entry of a storage by its key; nothing: the archive has none.
using FindStorage = std::function<std::optional<ZipEntry>(const std::string& key)>;

// Names are the keys of nested dictionaries, and positions in lists, joined by dots; a wrapper ("state_dict", "model", ...) that all
// tensors are in is left out of them. What is no tensor is left out. In the order of their bytes. Checked: every tensor lies in its
// storage, every storage in its entry, no name is there twice, and no view is larger than `file_size`. Throws Error(input, unsupported)
// naming the tensor.
std::vector<StoredView> named_tensors(const Pickle& pickle, std::uint64_t file_size, const FindStorage& find);

}  // namespace pytorch
