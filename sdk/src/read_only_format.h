// The base of formats of other writers, which are decoded and never written.
#pragma once

#include <qmill/error.h>
#include <qmill/format.h>

namespace qmill {

class ReadOnlyFormat : public Format {
 public:
  const FormatInfo& info() const override { return info_; }
  // Throws Error(unsupported): nothing here writes it.
  Layout layout(const TensorInfo& weight, const StorageOptions& wanted) const override;
  const Grid* grid() const override { return nullptr; }
  std::vector<StoredTensor> encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const override;

 protected:
  explicit ReadOnlyFormat(FormatInfo info) : info_(std::move(info)) { info_.is_read_only = true; }

  // The layer claims to be of this format, and `tensor` (null: missing) is not `expected`.
  Error contradiction(const StoredLayerInfo& layer, std::string_view name, const TensorInfo* tensor, std::string_view expected) const;

 private:
  FormatInfo info_;
};

}  // namespace qmill
