#include "checkpoint.h"

#include <qmill/error.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <set>

namespace pytorch {
namespace {

using qmill::DType;
using qmill::Error;
using qmill::ErrorKind;
using Kind = Value::Kind;

constexpr std::size_t kMaxLooks = 32'000'000;    // at values: lists may share parts and so be huge; without that, a pickle has fewer
constexpr std::size_t kMaxDepth = 32;            // a list may hold itself
constexpr std::size_t kMaxNameBytes = 4096;      // of one tensor
constexpr std::uint64_t kMaxSpent = 256u << 20;  // bytes of names and of what describes the tensors
constexpr std::uint64_t kTensorBytes = 128;      // of the description of a scalar
constexpr std::uint64_t kNameCopies = 4;         // that a tensor's name is kept in
constexpr auto kMaxBits = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

[[noreturn]] void reject_checkpoint(std::string message) { throw Error(ErrorKind::input, std::move(message), "the file is damaged; get it again"); }

struct NamedTensor {
  std::string name;
  std::size_t tensor;  // in Pickle::tensors
};

// Walks through dictionaries and lists.
class Walk {
 public:
  explicit Walk(const Pickle& pickle) : pickle_(pickle) {}

  std::vector<NamedTensor> tensors() {
    const Value root = unwrapped(pickle_.root);
    if (root.kind == Kind::tensor)
      throw Error(ErrorKind::input, "it holds one tensor without a name", "save a dictionary of named tensors, such as a state_dict()");
    visit(root, "", 0);
    return std::move(found_);
  }

 private:
  // A checkpoint of a training run wraps the model's tensors: {"state_dict": {...}, "epoch": 7}.
  Value unwrapped(Value root) {
    constexpr std::array<std::string_view, 7> kWrappers = {"state_dict", "model_state_dict", "model",  "module",
                                                           "params_ema", "params",           "weights"};
    for (std::size_t depth = 0; depth < kMaxDepth && root.kind == Kind::dict; ++depth) {
      const std::pair<Value, Value>* wrapper = nullptr;
      for (const auto& item : pickle_.dicts[root.index]) {
        if (!holds_tensors(item.second, depth + 1)) continue;
        if (wrapper != nullptr) return root;
        wrapper = &item;
      }
      if (wrapper == nullptr || wrapper->second.kind != Kind::dict || wrapper->first.kind != Kind::text) return root;
      const std::string& key = pickle_.texts[wrapper->first.index];
      if (std::find(kWrappers.begin(), kWrappers.end(), key) == kWrappers.end()) return root;
      root = wrapper->second;
    }
    return root;
  }

  bool holds_tensors(const Value& value, std::size_t depth) {
    count_look();
    if (!is_inner(value)) return false;
    check_depth(depth);
    const auto holds = [&](const Value& inner) { return holds_tensors(inner, depth + 1); };
    if (value.kind == Kind::tensor) return true;
    if (value.kind == Kind::dict)
      return std::any_of(pickle_.dicts[value.index].begin(), pickle_.dicts[value.index].end(),
                         [&](const auto& item) { return holds(item.second); });
    if (value.kind == Kind::list || value.kind == Kind::tuple)
      return std::any_of(pickle_.lists[value.index].begin(), pickle_.lists[value.index].end(), holds);
    return false;
  }

  void visit(const Value& value, const std::string& name, std::size_t depth) {
    check_depth(depth);
    const auto inside = [&](const std::string& key) {
      std::string inner = name.empty() ? key : name + "." + key;
      spend(sizeof(inner) + inner.size());
      if (inner.size() > kMaxNameBytes) reject_checkpoint(fmt::format("a name of {} bytes begins with '{}'", inner.size(), inner.substr(0, 100)));
      return inner;
    };
    if (value.kind == Kind::tensor) {
      const std::vector<std::int64_t>& shape = pickle_.tensors[value.index].shape;
      spend(kNameCopies * name.size() + kTensorBytes + 2 * shape.size() * sizeof(shape[0]));
      found_.push_back({name, value.index});
    } else if (value.kind == Kind::dict) {
      for (const auto& [key, inner] : pickle_.dicts[value.index]) {
        count_look();
        if (!is_inner(inner)) continue;
        if (key.kind != Kind::text && key.kind != Kind::integer) reject_checkpoint(fmt::format("a key in '{}' is neither a text nor a number", name));
        visit(inner, inside(key.kind == Kind::text ? pickle_.texts[key.index] : std::to_string(key.integer)), depth + 1);
      }
    } else if (value.kind == Kind::list || value.kind == Kind::tuple) {
      const std::vector<Value>& values = pickle_.lists[value.index];
      for (std::size_t i = 0; i < values.size(); ++i) {
        count_look();
        if (is_inner(values[i])) visit(values[i], inside(std::to_string(i)), depth + 1);
      }
    }
  }

  static bool is_inner(const Value& value) {
    return value.kind == Kind::tensor || value.kind == Kind::dict || value.kind == Kind::list || value.kind == Kind::tuple;
  }

  static void check_depth(std::size_t depth) {
    if (depth > kMaxDepth) reject_checkpoint(fmt::format("its dictionaries and lists are nested deeper than {} levels", kMaxDepth));
  }

  // At every value, and not only at those that hold others: a long list of numbers costs time each time that it is there.
  void count_look() {
    if (++looks_ > kMaxLooks) reject_checkpoint(fmt::format("its dictionaries and lists hold more than {} values", kMaxLooks));
  }

  void spend(std::uint64_t bytes) {
    spent_ += bytes;
    if (spent_ > kMaxSpent) reject_checkpoint(fmt::format("it gives its tensors absurdly many names, of more than {} bytes in all", kMaxSpent));
  }

  const Pickle& pickle_;
  std::vector<NamedTensor> found_;
  std::size_t looks_ = 0;
  std::uint64_t spent_ = 0;
};

struct TypeName {
  std::string_view storage;  // of torch.FloatStorage: "Float"
  std::string_view dtype;    // of torch.float32
  DType type;
};

constexpr std::array kTypes = {TypeName{"Double", "float64", DType::f64},
                               TypeName{"Float", "float32", DType::f32},
                               TypeName{"Half", "float16", DType::f16},
                               TypeName{"BFloat16", "bfloat16", DType::bf16},
                               TypeName{"Long", "int64", DType::i64},
                               TypeName{"Int", "int32", DType::i32},
                               TypeName{"Short", "int16", DType::i16},
                               TypeName{"Char", "int8", DType::i8},
                               TypeName{"Byte", "uint8", DType::u8},
                               TypeName{"Bool", "bool", DType::boolean},
                               TypeName{"ComplexFloat", "complex64", DType::c64},
                               TypeName{"", "double", DType::f64},
                               TypeName{"", "float", DType::f32},
                               TypeName{"", "half", DType::f16},
                               TypeName{"", "uint16", DType::u16},
                               TypeName{"", "uint32", DType::u32},
                               TypeName{"", "uint64", DType::u64},
                               TypeName{"", "float8_e4m3fn", DType::f8_e4m3},
                               TypeName{"", "float8_e5m2", DType::f8_e5m2},
                               TypeName{"", "float8_e8m0fnu", DType::f8_e8m0}};

std::string_view last_word(std::string_view global) { return global.substr(global.rfind(' ') + 1); }

bool is_untyped(const Pickle& pickle, const Storage& storage) { return last_word(pickle.texts[storage.type]) == "UntypedStorage"; }

DType type_of(const Pickle& pickle, const TensorView& tensor, const Storage& storage) {
  const std::string_view dtype = tensor.dtype ? last_word(pickle.texts[*tensor.dtype]) : "";
  std::string_view type = last_word(pickle.texts[storage.type]);
  type.remove_suffix(std::string_view("Storage").size());
  for (const TypeName& known : kTypes)
    if (dtype.empty() ? !known.storage.empty() && known.storage == type : known.dtype == dtype) return known.type;
  throw Error(ErrorKind::unsupported,
              fmt::format("it is of the type {}, which safetensors has no counterpart of", dtype.empty() ? type : dtype),
              "convert it to another type and save again");
}

bool is_contiguous(const TensorView& tensor) {
  std::int64_t expected = 1;
  for (std::size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] == 0) return true;
    if (tensor.shape[i] == 1) continue;
    if (tensor.strides[i] != expected) return false;
    expected *= tensor.shape[i];
  }
  return true;
}

// Number of values; throws when their bits do not fit 63, so that no later arithmetic can overflow.
std::uint64_t checked_count(const TensorView& tensor, std::uint64_t bits) {
  std::uint64_t total = bits;
  bool empty = false;
  for (const std::int64_t dimension : tensor.shape) {
    empty = empty || dimension == 0;
    if (dimension > 1 && static_cast<std::uint64_t>(dimension) > kMaxBits / total) reject_checkpoint("its shape is beyond 2^63 bits");
    total *= static_cast<std::uint64_t>(std::max<std::int64_t>(dimension, 1));
  }
  return empty ? 0 : total / bits;
}

// Values from the first to the last, as they lie in the storage.
std::uint64_t checked_span(const TensorView& tensor) {
  std::uint64_t last = 0;
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
    const auto steps = static_cast<std::uint64_t>(tensor.shape[i] - 1);
    const auto stride = static_cast<std::uint64_t>(tensor.strides[i]);
    if (steps != 0 && stride > (kMaxBits - last) / steps) reject_checkpoint("its strides are beyond 2^63");
    last += steps * stride;
  }
  return last + 1;
}

StoredView placed(const Pickle& pickle, const NamedTensor& named, std::uint64_t file_size, const FindStorage& find) {
  const TensorView& tensor = pickle.tensors[named.tensor];
  const Storage& storage = pickle.storages[tensor.storage];
  StoredView view;
  view.info = {named.name, type_of(pickle, tensor, storage), tensor.shape};
  view.strides = tensor.strides;
  for (std::size_t i = 0; i < view.strides.size(); ++i)
    if (tensor.shape[i] <= 1) view.strides[i] = 0;  // never taken, and may be anything
  const auto size = static_cast<std::uint64_t>(qmill::dtype_bits(view.info.dtype)) / 8;
  const std::uint64_t count = checked_count(tensor, 8 * size);

  const std::string& key = pickle.texts[storage.key];
  const std::optional<ZipEntry> entry = find(key);
  if (!entry) reject_checkpoint(fmt::format("its storage '{}' is not in the archive", key.substr(0, 100)));
  const bool is_raw = is_untyped(pickle, storage);
  const std::uint64_t unit = is_raw ? 1 : size;
  if (!is_raw && tensor.dtype) reject_checkpoint("its storage and the tensor both have a type");
  const auto elements = static_cast<std::uint64_t>(storage.elements);
  if (elements > entry->bytes / unit)
    reject_checkpoint(fmt::format("its storage has {} elements of {} bytes, its entry in the archive has {} bytes", elements, unit, entry->bytes));
  if (count == 0) {
    view.offset = entry->offset;
    return view;
  }
  const std::uint64_t span = checked_span(tensor);
  const std::uint64_t room = elements * unit / size;  // in values
  const auto offset = static_cast<std::uint64_t>(tensor.offset);
  if (offset > room || span > room - offset)
    reject_checkpoint(fmt::format("its values reach from {} to {} of a storage of {}", offset, offset + span, room));
  view.offset = entry->offset + offset * size;
  view.span_bytes = span * size;
  view.is_contiguous = is_contiguous(tensor);
  if (!view.is_contiguous && count > file_size / size)
    throw Error(ErrorKind::unsupported, fmt::format("it is an expanded view {} of {} stored values", view.info.shape_text(), span),
                "save it without the expansion");
  return view;
}

bool is_utf8(const std::string& text) {
  try {
    (void)nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {
    return false;
  }
  return true;
}

}  // namespace

std::vector<StoredView> named_tensors(const Pickle& pickle, std::uint64_t file_size, const FindStorage& find) {
  std::vector<StoredView> views;
  std::set<std::string> names;
  for (const NamedTensor& named : Walk(pickle).tensors()) {
    if (!is_utf8(named.name)) reject_checkpoint(fmt::format("the name of tensor {} is not UTF-8", views.size()));
    try {
      if (!names.insert(named.name).second) reject_checkpoint("two tensors have this name");
      views.push_back(placed(pickle, named, file_size, find));
    } catch (Error& error) {
      throw error.in(fmt::format("tensor '{}'", named.name));
    }
  }
  std::stable_sort(views.begin(), views.end(), [](const StoredView& a, const StoredView& b) { return a.offset < b.offset; });
  return views;
}

}  // namespace pytorch
