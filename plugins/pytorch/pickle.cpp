#include "pickle.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace pytorch {
namespace {

using qmill::Error;
using qmill::ErrorKind;
using Kind = Value::Kind;

constexpr std::size_t kMaxStack = 1 << 20;
constexpr std::size_t kMaxDimensions = 64;
constexpr std::size_t kMaxGlobalBytes = 128;  // those that are known are far shorter
constexpr std::size_t kMaxKeyBytes = 1024;    // of a storage; torch.save numbers them

// What all values may take, as a few bytes can recall and copy much. Those of real tensors take 10 to 19 times their pickle; the rest is
// room for long lists of small values, such as a log of the training.
constexpr std::uint64_t kMaxGrowth = 20;
constexpr std::uint64_t kFreeBytes = 128u << 20;

[[noreturn]] void reject_pickle(std::string message, std::string advice = "the file is damaged or of a kind that is not read; get it again") {
  throw Error(ErrorKind::input, std::move(message), std::move(advice));
}

constexpr std::string_view kOrderedDict = "collections OrderedDict";
constexpr std::string_view kRebuildTensor = "torch._utils _rebuild_tensor_v2";
constexpr std::string_view kRebuildTyped = "torch._utils _rebuild_tensor_v3";
constexpr std::string_view kRebuildParameter = "torch._utils _rebuild_parameter";
constexpr std::string_view kSize = "torch Size";
constexpr std::string_view kEncode = "_codecs encode";  // how protocol 2 writes bytes

bool is_storage_type(std::string_view global) {
  return (global.starts_with("torch ") || global.starts_with("torch.storage ")) && global.ends_with("Storage") &&
         global.find('.', global.find(' ')) == std::string_view::npos;
}

bool is_dtype(std::string_view global) {
  constexpr std::array<std::string_view, 24> kTorchTypes = {"float64",
                                                       "double",
                                                       "float32",
                                                       "float",
                                                       "float16",
                                                       "half",
                                                       "bfloat16",
                                                       "float8_e4m3fn",
                                                       "float8_e4m3fnuz",
                                                       "float8_e5m2",
                                                       "float8_e5m2fnuz",
                                                       "float8_e8m0fnu",
                                                       "float4_e2m1fn_x2",
                                                       "complex64",
                                                       "complex128",
                                                       "bool",
                                                       "uint8",
                                                       "int8",
                                                       "int16",
                                                       "uint16",
                                                       "int32",
                                                       "uint32",
                                                       "int64",
                                                       "uint64"};
  return global.starts_with("torch ") && std::find(kTorchTypes.begin(), kTorchTypes.end(), global.substr(6)) != kTorchTypes.end();
}

// All that a pickle may name. None of it is looked up or called: each is a case of Machine::reduce(), or a type.
bool is_known(std::string_view global) {
  constexpr std::array kCalls = {kOrderedDict, kRebuildTensor, kRebuildTyped, kRebuildParameter, kSize, kEncode};
  return std::find(kCalls.begin(), kCalls.end(), global) != kCalls.end() || is_storage_type(global) || is_dtype(global);
}

class Machine {
 public:
  explicit Machine(std::string_view bytes) : bytes_(bytes) {}

  Pickle run() {
    while (!stopped_) step(static_cast<unsigned char>(take(1).front()));
    return std::move(pickle_);
  }

 private:
  std::string_view take(std::uint64_t count) {
    if (count > bytes_.size() - at_) reject_pickle(fmt::format("data.pkl breaks off at byte {}", bytes_.size()));
    const std::string_view taken = bytes_.substr(at_, count);
    at_ += count;
    return taken;
  }

  std::uint64_t number(int size) {
    const std::string_view bytes = take(static_cast<std::uint64_t>(size));
    std::uint64_t value = 0;
    for (int i = size - 1; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[static_cast<std::size_t>(i)]);
    return value;
  }

  std::string_view line() {
    const std::size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) reject_pickle(fmt::format("data.pkl breaks off at byte {}", bytes_.size()));
    const std::string_view text = take(end - at_);
    take(1);
    return text;
  }

  // Before anything is made that stays.
  void spend(std::uint64_t bytes) {
    spent_ += bytes;
    const std::uint64_t room = kFreeBytes + kMaxGrowth * bytes_.size();
    if (spent_ > room) reject_pickle(fmt::format("data.pkl has {} bytes and describes values that take more than {}", bytes_.size(), room));
  }

  // A vector that grows may have twice the room that it needs.
  void spend_items(std::size_t values) { spend(2 * values * sizeof(Value)); }

  void push(Value value) {
    if (stack_.size() >= kMaxStack) reject_pickle(fmt::format("data.pkl keeps more than {} values waiting", kMaxStack));
    stack_.push_back(value);
  }

  Value pop() {
    const std::size_t bottom = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() <= bottom) reject_pickle(fmt::format("data.pkl takes a value that is not there, before byte {}", at_));
    const Value value = stack_.back();
    stack_.pop_back();
    return value;
  }

  std::vector<Value> pop_to_mark() {
    if (marks_.empty()) reject_pickle(fmt::format("data.pkl ends a list that was not begun, before byte {}", at_));
    std::vector<Value> values(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return values;
  }

  Value& top(Kind kind, const char* what) {
    const std::size_t bottom = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() <= bottom || stack_.back().kind != kind) reject_pickle(fmt::format("data.pkl adds to no {}, before byte {}", what, at_));
    return stack_.back();
  }

  void push_text(std::string_view text, Kind kind = Kind::text) {
    spend(sizeof(std::string) + text.size());
    pickle_.texts.emplace_back(text);
    push({kind, 0, pickle_.texts.size() - 1});
  }

  void push_list(std::vector<Value> values, Kind kind) {
    spend(sizeof(values) + values.size() * sizeof(Value));
    pickle_.lists.push_back(std::move(values));
    push({kind, 0, pickle_.lists.size() - 1});
  }

  void push_dict() {
    spend(sizeof(pickle_.dicts[0]));
    pickle_.dicts.emplace_back();
    push({Kind::dict, 0, pickle_.dicts.size() - 1});
  }

  void push_tuple(int count) {
    std::vector<Value> values(static_cast<std::size_t>(count));
    for (int i = count - 1; i >= 0; --i) values[static_cast<std::size_t>(i)] = pop();
    push_list(std::move(values), Kind::tuple);
  }

  // Two's complement of any length; what does not fit 64 bits is no number that anything here needs.
  void push_long(std::string_view bytes) {
    if (bytes.size() > 8) return push({Kind::other});
    std::uint64_t value = !bytes.empty() && static_cast<unsigned char>(bytes.back()) >= 0x80 ? ~std::uint64_t{0} : 0;
    for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
    push({Kind::integer, static_cast<std::int64_t>(value)});
  }

  void push_global(std::string_view module, std::string_view name) {
    const bool is_short = module.size() + name.size() < kMaxGlobalBytes;
    const std::string global = is_short ? fmt::format("{} {}", module, name) : "";
    if (!is_known(global))
      throw Error(
          ErrorKind::input,
          fmt::format("data.pkl names '{}.{}', which is no part of a tensor: it would be code, and code in model files is never run",
                      module.substr(0, 200), name.substr(0, 200)),
          "load it where you trust it, and save its state_dict() alone");
    push_text(global, Kind::global);
  }

  void put(std::uint64_t place) {
    const std::size_t bottom = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() <= bottom) reject_pickle(fmt::format("data.pkl remembers a value that is not there, before byte {}", at_));
    if (place >= bytes_.size())
      reject_pickle(fmt::format("data.pkl has {} bytes and remembers a value at place {}, before byte {}", bytes_.size(), place, at_));
    if (place >= memo_.size()) {
      spend((place + 1 - memo_.size()) * sizeof(memo_[0]));
      memo_.resize(place + 1);
    }
    memo_[place] = stack_.back();
  }

  void get(std::uint64_t place) {
    if (place >= memo_.size() || !memo_[place])
      reject_pickle(fmt::format("data.pkl recalls value {}, which it did not remember, before byte {}", place, at_));
    push(*memo_[place]);
  }

  void set_items(const Value& dict, const std::vector<Value>& values) {
    if (values.size() % 2 != 0) reject_pickle(fmt::format("data.pkl has a key without a value, before byte {}", at_));
    spend_items(values.size());
    auto& items = pickle_.dicts[dict.index];
    for (std::size_t i = 0; i < values.size(); i += 2) items.emplace_back(values[i], values[i + 1]);
  }

  const std::vector<Value>& tuple(const Value& value, std::string_view what) const {
    if (value.kind != Kind::tuple) reject_pickle(fmt::format("data.pkl has no tuple for {}, before byte {}", what, at_));
    return pickle_.lists[value.index];
  }

  const std::string& text(const Value& value, Kind kind, std::string_view what) const {
    if (value.kind != kind) reject_pickle(fmt::format("data.pkl has no name for {}, before byte {}", what, at_));
    return pickle_.texts[value.index];
  }

  std::int64_t count(const Value& value, std::string_view what) const {
    if (value.kind != Kind::integer || value.integer < 0)
      reject_pickle(fmt::format("data.pkl has {} for {}, expected a whole number that is not negative; before byte {}",
                         value.kind == Kind::integer ? std::to_string(value.integer) : "no number", what, at_));
    return value.integer;
  }

  std::vector<std::int64_t> counts(const Value& value, std::string_view what) const {
    const std::vector<Value>& values = tuple(value, what);
    if (values.size() > kMaxDimensions)
      reject_pickle(fmt::format("data.pkl has {} numbers for {}, allowed are {}", values.size(), what, kMaxDimensions));
    std::vector<std::int64_t> counts;
    for (const Value& each : values) counts.push_back(count(each, what));
    return counts;
  }

  void push_storage() {
    const Value id = pop();
    const std::vector<Value>& fields = tuple(id, "a storage");
    if (fields.size() < 5 || text(fields[0], Kind::text, "a storage") != "storage")
      reject_pickle(fmt::format("data.pkl refers to something outside of it that is no storage, before byte {}", at_));
    const std::string& type = text(fields[1], Kind::global, "the type of a storage");
    if (!is_storage_type(type)) reject_pickle(fmt::format("data.pkl has a storage of type '{}'", type));
    const std::string& key = text(fields[2], Kind::text, "the key of a storage");
    if (key.size() > kMaxKeyBytes)
      reject_pickle(fmt::format("data.pkl has a storage with a key of {} bytes, allowed are {}", key.size(), kMaxKeyBytes));
    spend(sizeof(Storage));
    pickle_.storages.push_back({fields[1].index, fields[2].index, count(fields[4], "the size of a storage")});
    push({Kind::storage, 0, pickle_.storages.size() - 1});
  }

  // _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata]); v3 has a type before the metadata.
  Value rebuilt_tensor(const std::vector<Value>& arguments, bool has_dtype) {
    const std::size_t required = has_dtype ? 7 : 6;
    if (arguments.size() < required || arguments.size() > required + 1 || arguments[0].kind != Kind::storage)
      reject_pickle(fmt::format("data.pkl builds a tensor from {} values, expected a storage and {} or {} more; before byte {}", arguments.size(),
                         required - 1, required, at_));
    TensorView tensor;
    tensor.storage = arguments[0].index;
    tensor.offset = count(arguments[1], "the offset of a tensor");
    tensor.shape = counts(arguments[2], "the shape of a tensor");
    tensor.strides = counts(arguments[3], "the strides of a tensor");
    if (tensor.shape.size() != tensor.strides.size())
      reject_pickle(fmt::format("data.pkl has a tensor with {} dimensions and {} strides", tensor.shape.size(), tensor.strides.size()));
    if (has_dtype) {
      text(arguments[6], Kind::global, "the type of a tensor");
      tensor.dtype = arguments[6].index;
    }
    for (std::size_t i = required; i < arguments.size(); ++i)
      if (arguments[i].kind == Kind::dict && !pickle_.dicts[arguments[i].index].empty())
        throw Error(ErrorKind::unsupported, "data.pkl has a tensor that is the conjugate or negative of its stored values",
                    "resolve it (torch.resolve_conj, torch.resolve_neg) and save again");
    spend(sizeof(tensor) + 2 * tensor.shape.size() * sizeof(tensor.shape[0]));
    pickle_.tensors.push_back(std::move(tensor));
    return {Kind::tensor, 0, pickle_.tensors.size() - 1};
  }

  void reduce() {
    const Value argument = pop();
    const Value callee = pop();
    const std::vector<Value>& arguments = tuple(argument, "the arguments of a call");
    const std::string& global = text(callee, Kind::global, "a call");
    if (global == kOrderedDict && arguments.empty()) return push_dict();
    if (global == kRebuildTensor) return push(rebuilt_tensor(arguments, false));
    if (global == kRebuildTyped) return push(rebuilt_tensor(arguments, true));
    if (global == kRebuildParameter && !arguments.empty() && arguments[0].kind == Kind::tensor) return push(arguments[0]);
    if (global == kSize && arguments.size() == 1 && arguments[0].kind == Kind::tuple) return push(arguments[0]);
    if (global == kEncode) return push({Kind::other});
    reject_pickle(fmt::format("data.pkl calls '{}' in a way that torch.save does not, before byte {}", global, at_));
  }

  // Sets attributes: those of an OrderedDict are not part of the model (state_dict() leaves '_metadata' there).
  void build() {
    pop();
    top(Kind::dict, "dictionary");
  }

  void step(int opcode) {
    switch (opcode) {
      case 0x80: {  // PROTO
        const std::uint64_t protocol = number(1);
        if (protocol < 2 || protocol > 5) reject_pickle(fmt::format("data.pkl has pickle protocol {}, only 2 to 5 are read", protocol));
        return;
      }
      case 0x95:  // FRAME: only says how far to read ahead
        number(8);
        return;
      case '.':  // STOP
        pickle_.root = pop();
        stopped_ = true;
        return;
      case '(':  // MARK
        if (marks_.size() >= kMaxStack) reject_pickle(fmt::format("data.pkl begins more than {} lists in each other", kMaxStack));
        marks_.push_back(stack_.size());
        return;
      case '0':  // POP
        pop();
        return;
      case '1':  // POP_MARK
        pop_to_mark();
        return;
      case 'N':
        return push({Kind::none});
      case 0x88:  // NEWTRUE
        return push({Kind::boolean, 1});
      case 0x89:  // NEWFALSE
        return push({Kind::boolean, 0});
      case 'J':  // BININT
        return push({Kind::integer, static_cast<std::int32_t>(static_cast<std::uint32_t>(number(4)))});
      case 'K':  // BININT1
        return push({Kind::integer, static_cast<std::int64_t>(number(1))});
      case 'M':  // BININT2
        return push({Kind::integer, static_cast<std::int64_t>(number(2))});
      case 0x8a:  // LONG1
        return push_long(take(number(1)));
      case 0x8b:  // LONG4
        return push_long(take(number(4)));
      case 'G':  // BINFLOAT
        number(8);
        return push({Kind::other});
      case 0x8c:  // SHORT_BINUNICODE
        return push_text(take(number(1)));
      case 'X':  // BINUNICODE
        return push_text(take(number(4)));
      case 0x8d:  // BINUNICODE8
        return push_text(take(number(8)));
      case 'U':  // SHORT_BINSTRING: a text of Python 2
        return push_text(take(number(1)));
      case 'T':  // BINSTRING
        return push_text(take(number(4)));
      case 'C':  // SHORT_BINBYTES
        take(number(1));
        return push({Kind::other});
      case 'B':  // BINBYTES
        take(number(4));
        return push({Kind::other});
      case 0x8e:  // BINBYTES8
        take(number(8));
        return push({Kind::other});
      case ')':
        return push_list({}, Kind::tuple);
      case 't':
        return push_list(pop_to_mark(), Kind::tuple);
      case 0x85:
        return push_tuple(1);
      case 0x86:
        return push_tuple(2);
      case 0x87:
        return push_tuple(3);
      case ']':
        return push_list({}, Kind::list);
      case 'a': {  // APPEND
        const Value value = pop();
        spend_items(1);
        pickle_.lists[top(Kind::list, "list").index].push_back(value);
        return;
      }
      case 'e': {  // APPENDS
        const std::vector<Value> values = pop_to_mark();
        spend_items(values.size());
        std::vector<Value>& list = pickle_.lists[top(Kind::list, "list").index];
        list.insert(list.end(), values.begin(), values.end());
        return;
      }
      case '}':
        return push_dict();
      case 's': {  // SETITEM
        const Value value = pop();
        const Value key = pop();
        return set_items(top(Kind::dict, "dictionary"), {key, value});
      }
      case 'u': {  // SETITEMS
        const std::vector<Value> values = pop_to_mark();
        return set_items(top(Kind::dict, "dictionary"), values);
      }
      case 'q':
        return put(number(1));
      case 'r':
        return put(number(4));
      case 0x94:  // MEMOIZE
        return put(memo_.size());
      case 'h':
        return get(number(1));
      case 'j':
        return get(number(4));
      case 'c': {  // GLOBAL
        const std::string_view module = line();
        return push_global(module, line());
      }
      case 0x93: {  // STACK_GLOBAL
        const Value name = pop();
        const Value module = pop();
        return push_global(text(module, Kind::text, "a global"), text(name, Kind::text, "a global"));
      }
      case 'R':
        return reduce();
      case 'b':
        return build();
      case 'Q':  // BINPERSID
        return push_storage();
      default:
        reject_pickle(fmt::format("data.pkl has the opcode {:#04x} at byte {}, which torch.save does not write for tensors", opcode, at_ - 1));
    }
  }

  const std::string_view bytes_;
  std::uint64_t at_ = 0;
  bool stopped_ = false;
  std::vector<Value> stack_;
  std::vector<std::size_t> marks_;         // heights of the stack
  std::deque<std::optional<Value>> memo_;  // writers number the places from 0 on, so that there are fewer than bytes
  std::uint64_t spent_ = 0;
  Pickle pickle_;
};

}  // namespace

Pickle read_pickle(std::string_view bytes) {
  if (bytes.size() > kMaxPickleBytes) reject_pickle(fmt::format("data.pkl has {} bytes, allowed are {}", bytes.size(), kMaxPickleBytes));
  return Machine(bytes).run();
}

}  // namespace pytorch
