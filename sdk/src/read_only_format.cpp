#include "read_only_format.h"

#include <fmt/format.h>

namespace qmill {

Layout ReadOnlyFormat::layout(const TensorInfo& weight, const StorageOptions&) const {
  throw Error(ErrorKind::unsupported, fmt::format("format '{}' is read, not written; asked for '{}'", info_.name, weight.name),
              "choose int8, int4 or fp16");
}

std::vector<StoredTensor> ReadOnlyFormat::encode(const CodedWeight&, const TensorInfo& weight, const Layout&) const {
  throw Error(ErrorKind::internal, fmt::format("format '{}' is read, not written; asked for '{}'", info_.name, weight.name));
}

Error ReadOnlyFormat::contradiction(const StoredLayerInfo& layer, std::string_view name, const TensorInfo* tensor,
                                    std::string_view expected) const {
  const std::string found =
      tensor == nullptr ? std::string("missing") : fmt::format("{} {}", dtype_name(tensor->dtype), tensor->shape_text());
  return Error(ErrorKind::input,
               fmt::format("layer '{}' is marked {}, and '{}' is {}, expected {}", layer.base, info_.name, name, found, expected));
}

}  // namespace qmill
