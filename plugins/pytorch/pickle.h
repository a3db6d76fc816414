// The data.pkl of a torch.save() file, read without running anything: an interpreter of the pickle opcodes that torch.save() writes
// (protocols 2 to 5), which makes dictionaries, lists, numbers and descriptions of tensors, and knows nothing else.
// Opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pytorch {

inline constexpr std::uint64_t kMaxPickleBytes = 32u << 20;  // some 200 bytes per tensor in real files

// Small and copied freely; what does not fit in it is in the Pickle, at `index` of the list for its kind.
struct Value {
  enum class Kind : std::uint8_t { none, boolean, integer, other, text, list, tuple, dict, global, storage, tensor };
  Kind kind = Kind::none;
  std::int64_t integer = 0;  // boolean: 0 or 1
  std::size_t index = 0;
};

// ('storage', torch.FloatStorage, key, location, elements)
struct Storage {
  std::size_t type = 0;       // in Pickle::texts: "torch FloatStorage"
  std::size_t key = 0;        // in Pickle::texts: names the entry of the archive
  std::int64_t elements = 0;  // bytes for an UntypedStorage
};

struct TensorView {
  std::size_t storage = 0;           // in Pickle::storages
  std::optional<std::size_t> dtype;  // in Pickle::texts: "torch float8_e4m3fn", for an UntypedStorage; nothing: that of the storage
  std::int64_t offset = 0;           // in elements, as are strides
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
};

struct Pickle {
  Value root;
  std::deque<std::string> texts;         // text, global ("module name")
  std::deque<std::vector<Value>> lists;  // list, tuple
  std::deque<std::vector<std::pair<Value, Value>>> dicts;
  std::deque<Storage> storages;
  std::deque<TensorView> tensors;  // shapes, strides and offsets are not negative; nothing else is checked
};

// Throws Error(input) for what is no such pickle, for any global but those of tensors (naming it: it would be code), and for one that is
// absurdly large or describes values that take more than 128 MiB and 20 times its own bytes; Error(unsupported) for tensors that are views
// of a kind that no file of ours can hold.
Pickle read_pickle(std::string_view bytes);

}  // namespace pytorch
