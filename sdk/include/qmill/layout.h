// How one weight is stored: which values share a scale, in which basis. Formats make layouts; quantizers read them.
#pragma once

#include <qmill/storage_options.h>

#include <memory>

namespace qmill {

// What only its own format knows of a layout, such as names and padding. Immutable.
class QMILL_API FormatData {
 public:
  virtual ~FormatData();

  // All of it that decides stored bytes; the digest of a plan covers this text.
  virtual std::string text() const = 0;
};

// Of a weight [N,K]. Scales form a matrix [ceil(N / tile_rows), ceil(K / tile_columns)].
struct Layout {
  Scaling scaling = Scaling::row;
  std::int64_t tile_rows = 1;
  std::int64_t tile_columns = 1;
  std::int64_t rotation_group = 0;  // 0: stored as it is; else multiplied by the regular Hadamard matrix per group of columns
  std::string note = {};            // why this is less than what was asked for; empty: it is not
  std::shared_ptr<const FormatData> data = {};
};

// The data of the format's own type. A layout without data has that type's initial values. Throws Error(internal) for a layout of another
// format.
template <class Data>
const Data& data_of(const Layout& layout);

namespace detail {
[[noreturn]] QMILL_API void reject_foreign_layout();
}

template <class Data>
const Data& data_of(const Layout& layout) {
  static const Data initial;
  if (layout.data == nullptr) return initial;
  const auto* data = dynamic_cast<const Data*>(layout.data.get());
  if (data == nullptr) detail::reject_foreign_layout();
  return *data;
}

}  // namespace qmill
