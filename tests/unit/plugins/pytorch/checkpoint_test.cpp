#include <checkpoint.h>

#include "zip_bytes.h"

#include <expect_error.h>

#include <gmock/gmock.h>

#include <limits>

using namespace pytorch;
using namespace pytorch_test;
using qmill::DType;
using qmill::ErrorKind;
using qmill::TensorInfo;
using qmill::testing::expect_error;
using ::testing::ElementsAre;

namespace pytorch_checkpoint_test {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

// Storage "0" has 96 bytes from 1000, "1" 16 from 2000.
std::vector<StoredView> read(const std::string& value) {
  return named_tensors(read_pickle(pickle(value)), 4096, [](const std::string& key) -> std::optional<ZipEntry> {
    if (key == "0") return ZipEntry{1000, 96};
    if (key == "1") return ZipEntry{2000, 16};
    return std::nullopt;
  });
}

std::vector<std::string> names(const std::string& value) {
  std::vector<std::string> names;
  for (const StoredView& view : read(value)) names.push_back(view.info.name);
  return names;
}

void expect_rejected(const std::string& value, std::initializer_list<std::string_view> parts, ErrorKind kind = ErrorKind::input) {
  expect_error(kind, parts, [&] { read(value); });
}

const std::string kTensor = tensor(storage("FloatStorage", "0", 24), 0, {4, 6}, {6, 1});
const std::string kSmall = tensor(storage("HalfStorage", "1", 8), 2, {3}, {1});

TEST(Checkpoint, TensorsLieInTheirStorages) {
  const std::vector<StoredView> views = read(dict({{"b", kSmall}, {"a.weight", kTensor}}));
  ASSERT_EQ(views.size(), 2u);
  EXPECT_EQ(views[0].info, (TensorInfo{"a.weight", DType::f32, {4, 6}}));
  EXPECT_EQ(views[0].offset, 1000u);
  EXPECT_EQ(views[0].span_bytes, 96u);
  EXPECT_TRUE(views[0].is_contiguous);
  EXPECT_EQ(views[1].info, (TensorInfo{"b", DType::f16, {3}}));
  EXPECT_EQ(views[1].offset, 2004u);
  EXPECT_EQ(views[1].span_bytes, 6u);
}

TEST(Checkpoint, ViewsKeepTheirStrides) {
  const StoredView view = read(dict({{"t", tensor(storage("FloatStorage", "0", 24), 1, {3, 4}, {1, 6})}}))[0];
  EXPECT_FALSE(view.is_contiguous);
  EXPECT_EQ(view.offset, 1004u);
  EXPECT_EQ(view.span_bytes, 4u * (2 + 3 * 6 + 1));
  EXPECT_THAT(view.strides, ElementsAre(1, 6));
}

TEST(Checkpoint, StridesOfSingleRowsSayNothing) {
  const StoredView view = read(dict({{"t", tensor(storage("FloatStorage", "0", 24), 0, {1, 24, 1}, {kMost, 1, kMost})}}))[0];
  EXPECT_TRUE(view.is_contiguous);
  EXPECT_EQ(view.span_bytes, 96u);
}

TEST(Checkpoint, TensorsWithoutValuesAndScalars) {
  const std::vector<StoredView> views = read(dict({{"none", tensor(storage("FloatStorage", "0", 0), 0, {0, 5}, {kMost, 1})},
                                                   {"scalar", tensor(storage("LongStorage", "0", 12), 11, {}, {})}}));
  ASSERT_EQ(views.size(), 2u);
  EXPECT_EQ(views[0].span_bytes, 0u);
  EXPECT_EQ(views[1].info, (TensorInfo{"scalar", DType::i64, {}}));
  EXPECT_EQ(views[1].offset, 1088u);
}

TEST(Checkpoint, TypesOfStorages) {
  const std::pair<const char*, DType> types[] = {
      {"DoubleStorage", DType::f64}, {"FloatStorage", DType::f32},    {"HalfStorage", DType::f16},        {"BFloat16Storage", DType::bf16},
      {"LongStorage", DType::i64},   {"IntStorage", DType::i32},      {"ShortStorage", DType::i16},       {"CharStorage", DType::i8},
      {"ByteStorage", DType::u8},    {"BoolStorage", DType::boolean}, {"ComplexFloatStorage", DType::c64}};
  for (const auto& [name, dtype] : types)
    EXPECT_EQ(read(dict({{"t", tensor(storage(name, "1", 1), 0, {1}, {1})}}))[0].info.dtype, dtype) << name;
  for (const char* name : {"QInt8Storage", "ComplexDoubleStorage", "UntypedStorage", "Storage"})
    expect_rejected(dict({{"t", tensor(storage(name, "1", 1), 0, {1}, {1})}}), {"'t'", "no counterpart"}, ErrorKind::unsupported);
}

std::string typed(const std::string& dtype, std::int64_t bytes, std::int64_t offset, std::int64_t count) {
  return global("torch._utils", "_rebuild_tensor_v3") +
         tuple({tuple({text("storage"), global("torch.storage", "UntypedStorage"), text("0"), text("cpu"), integer(bytes)}) + "Q",
                integer(offset), numbers({count}), numbers({1}), "\x89", "N", global("torch", dtype)}) +
         "R";
}

TEST(Checkpoint, UntypedStoragesAreCountedInBytes) {
  const StoredView view = read(dict({{"t", typed("float8_e4m3fn", 96, 90, 6)}}))[0];
  EXPECT_EQ(view.info, (TensorInfo{"t", DType::f8_e4m3, {6}}));
  EXPECT_EQ(view.offset, 1090u);
  EXPECT_EQ(read(dict({{"t", typed("uint16", 96, 40, 8)}}))[0].offset, 1080u);
  expect_rejected(dict({{"t", typed("uint16", 96, 41, 8)}}), {"'t'", "from 41 to 49 of a storage of 48"});
  expect_rejected(dict({{"t", typed("float8_e4m3fnuz", 96, 0, 6)}}), {"'t'", "float8_e4m3fnuz"}, ErrorKind::unsupported);
}

TEST(Checkpoint, ParametersAreTheirTensors) {
  const std::string parameter = global("torch._utils", "_rebuild_parameter") + tuple({kTensor, "\x88", "N"}) + "R";
  EXPECT_THAT(names(dict({{"p", parameter}})), ElementsAre("p"));
}

TEST(Checkpoint, NamesAreJoinedByDots) {
  const std::string list = "](" + kTensor + kSmall + "e";
  EXPECT_THAT(names(dict({{"a", dict({{"b", kTensor}})}, {"l", list}, {"n", integer(3)}})), ElementsAre("a.b", "l.0", "l.1"));
  EXPECT_THAT(names("}" + integer(7) + kTensor + "s"), ElementsAre("7"));
  EXPECT_THAT(names("](" + kTensor + kSmall + "e"), ElementsAre("0", "1"));
}

TEST(Checkpoint, WrappersThatHoldAllTensorsAreLeftOut) {
  EXPECT_THAT(names(dict({{"state_dict", dict({{"a", kTensor}})}, {"epoch", integer(3)}, {"log", "](" + integer(1) + "Ne"}})),
              ElementsAre("a"));
  EXPECT_THAT(names(dict({{"model", dict({{"module", dict({{"a", kTensor}})}})}})), ElementsAre("a"));
  EXPECT_THAT(names(dict({{"encoder", dict({{"a", kTensor}})}})), ElementsAre("encoder.a"));
  EXPECT_THAT(names(dict({{"model", kTensor}})), ElementsAre("model"));
  EXPECT_THAT(names(dict({{"model", dict({{"a", kTensor}})}, {"optimizer", dict({{"b", kSmall}})}})),
              ElementsAre("model.a", "optimizer.b"));
}

TEST(Checkpoint, AttributesOfAnOrderedDictAreNotPartOfTheModel) {
  const std::string ordered = global("collections", "OrderedDict") + ")R(" + text("a") + kTensor + "u";
  EXPECT_THAT(names(ordered + dict({{"_metadata", dict({})}}) + "b"), ElementsAre("a"));
}

TEST(Checkpoint, NamesThatCollideOrAreNoTextAreErrors) {
  expect_rejected(dict({{"a", dict({{"b", kTensor}})}, {"a.b", kTensor}}), {"'a.b'", "two tensors"});
  expect_rejected(dict({{"\xff", kTensor}}), {"not UTF-8"});
  expect_rejected("}" + tuple({}) + kTensor + "s", {"neither a text nor a number"});
  expect_rejected(kTensor, {"one tensor without a name"});
}

TEST(Checkpoint, PlacesOutsideOfTheStorageAreErrors) {
  const auto view = [](const char* key, std::int64_t elements, std::int64_t offset, const std::vector<std::int64_t>& shape,
                       const std::vector<std::int64_t>& strides) {
    return dict({{"t", tensor(storage("FloatStorage", key, elements), offset, shape, strides)}});
  };
  expect_rejected(view("7", 1, 0, {1}, {1}), {"'t'", "'7' is not in the archive"});
  expect_rejected(view("../0", 1, 0, {1}, {1}), {"'t'", "not in the archive"});
  expect_rejected(view("0", 25, 0, {1}, {1}), {"'t'", "25 elements", "96 bytes"});
  expect_rejected(view("0", kMost, 0, {1}, {1}), {"'t'", "96 bytes"});
  expect_rejected(view("0", 24, 1, {24}, {1}), {"'t'", "from 1 to 25 of a storage of 24"});
  expect_rejected(view("0", 24, kMost, {1}, {1}), {"'t'", "storage of 24"});
  expect_rejected(view("0", 24, 0, {4, 6}, {7, 1}), {"'t'", "storage of 24"});
  expect_rejected(view("0", 24, 0, {2}, {kMost}), {"'t'"});
  expect_rejected(view("0", 24, 0, {kMost, kMost}, {0, 0}), {"'t'", "2^63"});
  expect_rejected(view("0", 24, 0, {1 << 20, 2}, {1, std::int64_t{1} << 60}), {"'t'"});
  expect_rejected(view("0", 24, 0, {1 << 20, 1 << 20}, {0, 0}), {"'t'", "expanded view"}, ErrorKind::unsupported);
  expect_rejected(view("0", 24, 0, {-1}, {1}), {"-1 for the shape"});
  expect_rejected(view("0", 24, -1, {1}, {1}), {"-1 for the offset"});
  expect_rejected(view("0", 24, 0, {2}, {-1}), {"-1 for the strides"});
  expect_rejected(view("0", -1, 0, {2}, {1}), {"-1 for the size of a storage"});
  expect_rejected(view("0", 24, 0, {2}, {1, 1}), {"1 dimensions and 2 strides"});
  expect_rejected(view("0", 24, 0, std::vector<std::int64_t>(65, 1), std::vector<std::int64_t>(65, 1)), {"65 numbers"});
}

TEST(Checkpoint, ConjugatesAreRefused) {
  const std::string value =
      global("torch._utils", "_rebuild_tensor_v2") +
      tuple({storage("ComplexFloatStorage", "0", 12), integer(0), numbers({1}), numbers({1}), "\x89", "N", dict({{"conj", "\x88"}})}) + "R";
  expect_rejected(dict({{"t", value}}), {"conjugate"}, ErrorKind::unsupported);
}

TEST(Pickle, CodeIsNamedAndNotRun) {
  for (const auto& [module, name] : std::vector<std::pair<std::string, std::string>>{{"os", "system"},
                                                                                     {"posix", "system"},
                                                                                     {"builtins", "eval"},
                                                                                     {"__builtin__", "getattr"},
                                                                                     {"torch", "load"},
                                                                                     {"torch", "int_repr"},
                                                                                     {"torch.storage", "_load_from_bytes"},
                                                                                     {"torch.x", "FloatStorage"},
                                                                                     {"collections", "Counter"},
                                                                                     {"numpy.core.multiarray", "scalar"}}) {
    const std::string call = tuple({text("touch /tmp/x")}) + "R";
    expect_rejected(global(module, name) + call, {module + "." + name, "never run", "state_dict()"});
    expect_rejected(text(module) + text(name) + "\x93" + call, {module + "." + name, "never run"});
  }
}

TEST(Pickle, KnownNamesAreNotCalledInOtherWays) {
  expect_rejected(global("torch", "FloatStorage") + tuple({}) + "R", {"torch FloatStorage"});
  expect_rejected(global("torch", "float32") + tuple({}) + "R", {"torch float32"});
  expect_rejected(global("collections", "OrderedDict") + tuple({integer(1)}) + "R", {"OrderedDict"});
  expect_rejected(global("torch._utils", "_rebuild_parameter") + tuple({integer(1)}) + "R", {"_rebuild_parameter"});
  expect_rejected(global("torch._utils", "_rebuild_tensor_v2") + tuple({integer(1)}) + "R", {"expected a storage"});
  expect_rejected(global("torch", "Size") + integer(1) + "R", {"no tuple"});
  expect_rejected(text("f") + tuple({}) + "R", {"no name for a call"});
  expect_rejected(tuple({text("module"), text("x")}) + "Q", {"no storage"});
  expect_rejected(tuple({text("storage"), global("torch", "Size"), text("0"), text("cpu"), integer(1)}) + "Q", {"torch Size"});
  expect_rejected(integer(1) + dict({}) + "b", {"adds to no dictionary"});
}

TEST(Pickle, OtherOpcodesAreErrors) {
  for (const char opcode : {'i',    'o',    'P',    'p',    'g',    'I',    'L',    'S',    'V',    'F',    'd',    'l',    '2',
                            '\x81', '\x82', '\x83', '\x84', '\x8f', '\x90', '\x91', '\x92', '\x96', '\x97', '\x98', '\xff', '\0'})
    expect_rejected("N" + std::string(1, opcode) + "\x01\n", {"opcode 0x"});
  expect_rejected("\x80\x01", {"protocol 1"});
  expect_rejected("\x80\x06", {"protocol 6"});
}

TEST(Pickle, EveryPrefixIsAnError) {
  const std::string bytes = pickle(dict({{"a", kTensor}, {"b", "\x8c\x01x"}, {"c", "G" + std::string(8, 'x')}}));
  ASSERT_NO_THROW(read_pickle(bytes));
  for (std::size_t length = 0; length < bytes.size(); ++length)
    expect_error(ErrorKind::input, {"breaks off"}, [&] { read_pickle(std::string_view(bytes).substr(0, length)); });
}

TEST(Pickle, ValuesThatAreNotThereAreErrors) {
  for (const char* bytes :
       {".",      "t",     "(",         "(.", "a",  "]a", "](", "e", "]e", "}Ns",  "}(Nu",  "Nu",   "(u",   "q", "q\x01",
        "(q\x01", "h\x01", "j\1\2\3\4", "R",  "NR", "Q",  "b",  "0", "1",  "\x85", "N\x86", "\x94", "\x93", "(0"})
    expect_error(ErrorKind::input, {}, [&] { read_pickle("\x80\x02" + std::string(bytes) + "."); });
}

TEST(Pickle, NumbersOfAllSizes) {
  const auto read_number = [](const std::string& bytes) {
    const Pickle parsed = read_pickle(pickle(bytes));
    return std::pair(parsed.root.kind, parsed.root.integer);
  };
  using Kind = Value::Kind;
  EXPECT_EQ(read_number("K\xff"), std::pair(Kind::integer, std::int64_t{255}));
  EXPECT_EQ(read_number("M\xff\xff"), std::pair(Kind::integer, std::int64_t{65535}));
  EXPECT_EQ(read_number("J\xff\xff\xff\xff"), std::pair(Kind::integer, std::int64_t{-1}));
  EXPECT_EQ(read_number(std::string("\x8a\x00", 2)), std::pair(Kind::integer, std::int64_t{0}));
  EXPECT_EQ(read_number("\x8a\x01\xff"), std::pair(Kind::integer, std::int64_t{-1}));
  EXPECT_EQ(read_number(std::string("\x8a\x02\xff\x00", 4)), std::pair(Kind::integer, std::int64_t{255}));
  EXPECT_EQ(read_number("\x8a\x08" + std::string(8, '\xff')), std::pair(Kind::integer, std::int64_t{-1}));
  EXPECT_EQ(read_number("\x8a\x09" + std::string(9, '\x01')).first, Kind::other);
}

std::string repeated(const std::string& bytes, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += bytes;
  return all;
}

// Remembers the value at `place` and takes it from the stack.
std::string remembered(const std::string& value, int place) { return value + "q" + number(static_cast<std::uint64_t>(place), 1) + "0"; }
std::string recalled(int place) { return "h" + number(static_cast<std::uint64_t>(place), 1); }

// A bomb: each level of this holds the one below twice, so that the whole would have 2^60 values.
TEST(Bombs, SharedPartsAreNotWalkedForEver) {
  std::string value = dict({{"x", kTensor}}) + "q\x01" + "0";
  for (int level = 0; level < 60; ++level) value += "}(" + text("a") + "h\x01" + text("b") + "h\x01" + "uq\x01" + "0";
  expect_rejected(value + "h\x01", {});
  std::string shallow =
      "]q\x01"
      "0";
  for (int level = 0; level < 25; ++level)
    shallow +=
        "](h\x01"
        "h\x01"
        "eq\x01"
        "0";
  expect_rejected(shallow + "h\x01", {"absurdly many names"});
  expect_rejected(shallow + dict({{"a", "h\x01"}}), {"more than 32000000 values"});
}

// Values that are no tensors cost time, too: each of these is a million of them that stand in 64 places.
TEST(Bombs, LongListsInManyPlacesAreCountedByTheirValues) {
  const std::string list = remembered("]" + repeated("(" + std::string(100'000, 'N') + "e", 10), 1);
  const std::string dictionary = remembered("}" + repeated("(" + std::string(200'000, 'N') + "u", 10), 1);
  const std::string with_tensor = remembered("]" + repeated("(" + std::string(100'000, 'N') + "e", 10) + kTensor + "a", 1);
  const std::string places = "](" + repeated(recalled(1), 64) + "e";
  for (const std::string& value : {list, dictionary, with_tensor})
    for (const std::string& root : {places, dict({{"a", places}})}) expect_rejected(value + root, {"more than 32000000 values"});
}

TEST(Bombs, NamesOfWhatHoldsNoTensorsAreCounted) {
  const std::string empty = remembered("]", 1);
  const std::string many = remembered("](" + repeated(recalled(1), 100'000) + "e", 2);
  expect_rejected(empty + many + dict({{std::string(4000, 'n'), recalled(2)}, {"t", kTensor}}), {"absurdly many names"});
}

TEST(Bombs, TensorsInManyPlacesAreCounted) {
  const std::vector<std::int64_t> ones(64, 1);
  const std::string one = remembered(tensor(storage("FloatStorage", "0", 24), 0, ones, ones), 1);
  expect_rejected(one + "](" + repeated(recalled(1), 250'000) + "e", {"absurdly many names"});
}

TEST(Bombs, KeysOfStoragesAreShortAndShared) {
  const std::string key(1024, 'k');
  const auto stored = [](const std::string& key_bytes) {
    return remembered(tuple({text("storage"), global("torch", "FloatStorage"), text(key_bytes), text("cpu"), integer(1)}), 1);
  };
  expect_rejected(stored(key + "k") + recalled(1) + "Q", {"a key of 1025 bytes, allowed are 1024"});
  const Pickle parsed = read_pickle(pickle(stored(key) + "(" + repeated(recalled(1) + "Q", 3) + "t"));
  ASSERT_EQ(parsed.storages.size(), 3u);
  for (const Storage& each : parsed.storages) EXPECT_EQ(parsed.texts[each.key], key);
  EXPECT_EQ(parsed.texts.size(), 4u);  // "storage", the type, the key, "cpu"
}

TEST(Bombs, NamesOfTypesAreShort) {
  const std::string name = "Q" + std::string(1'000'000, 'x') + "Storage";
  expect_rejected(remembered(text("torch"), 1) + remembered(text(name), 2) + recalled(1) + recalled(2) + "\x93",
                  {"'torch.Qxxx", "never run"});
}

TEST(Bombs, PlacesToRememberAreFewerThanBytes) {
  EXPECT_NO_THROW(read_pickle(pickle("Nr" + number(7, 4))));
  expect_rejected("Nr" + number(9, 4), {"has 9 bytes", "at place 9"});
  expect_rejected("Nr" + number(0xffffffff, 4) + recalled(0), {"at place 4294967295"});
  expect_rejected("Nq\x05" + recalled(4), {"recalls value 4"});
}

TEST(Bombs, CallsHaveFewArguments) {
  std::string arguments = storage("FloatStorage", "0", 24) + integer(0) + numbers({1}) + numbers({1}) + "\x89N";
  const std::string callee = global("torch._utils", "_rebuild_tensor_v2");
  EXPECT_THAT(names(dict({{"t", callee + "(" + arguments + "NtR"}})), ElementsAre("t"));
  expect_rejected(dict({{"t", callee + "(" + arguments + "NNtR"}}), {"from 8 values, expected a storage and 5 or 6 more"});
}

// Each of these makes more of a few bytes than any real file does.
TEST(Bombs, WhatAPickleMakesIsLimited) {
  const std::vector<std::int64_t> ones(64, 1);
  const std::string call = remembered(global("torch._utils", "_rebuild_tensor_v2"), 1) +
                           remembered(tuple({storage("FloatStorage", "0", 24), integer(0), numbers(ones), numbers(ones), "\x89", "N"}), 2);
  const std::pair<const char*, std::string> bombs[] = {
      {"tensors", call + repeated(recalled(1) + recalled(2) + "R0", 200'000)},
      {"tuples", "N" + std::string(5'000'000, '\x85')},
      {"memory", "N" + std::string(12'000'000, '\x94')},
      {"dictionaries", "}" + repeated("NNs", 4'000'000)},
      {"items", "]" + repeated("(" + std::string(1'000'000, 'N') + "e", 5)},
  };
  for (const auto& [name, value] : bombs) {
    SCOPED_TRACE(name);
    expect_error(ErrorKind::input, {"describes values that take more than"}, [&] { read_pickle(pickle(value)); });
  }
}

// What real files do, a million times each.
TEST(Bombs, AMillionEntriesAreNone) {
  constexpr int kMany = 1'000'000;
  const auto place = [](int i) { return "r" + number(static_cast<std::uint64_t>(i), 4); };
  std::string floats = "](", flags = "](", texts = "](", shared = "}(";
  std::string steps = remembered(text("step"), 0) + remembered(text("loss"), 1) + "](";
  for (int i = 0; i < kMany; ++i) {
    const std::string end = i % 1000 == 999 ? "e(" : "";
    floats += "G" + std::string(8, '\x40') + end;
    flags += "\x88" + end;
    texts += text(std::to_string(i)) + place(i) + end;
    steps += "}" + place(i + 2) + "(" + recalled(0) + "J" + number(static_cast<std::uint64_t>(i), 4) + recalled(1) + "G" +
             std::string(8, '\x40') + "u" + end;
    shared += text(std::to_string(i)) + place(i + 1) + "j" + number(0, 4) + (i % 1000 == 999 ? "u(" : "");
  }
  for (const std::string& values : {floats, flags, texts, steps})
    EXPECT_THAT(names(dict({{"log", values + "e"}, {"model", dict({{"a", kTensor}})}})), ElementsAre("a"));
  EXPECT_EQ(names(kTensor + place(0) + "0" + shared + "u").size(), static_cast<std::size_t>(kMany));
}

TEST(Bombs, WhatHoldsItselfIsNotWalkedForEver) {
  expect_rejected(
      "]q\x01"
      "h\x01"
      "a",
      {"nested deeper"});
  expect_rejected("}q\x01" + text("a") +
                      "h\x01"
                      "s",
                  {"nested deeper"});
  expect_rejected(std::string(100'000, ']') + std::string(99'999, 'a'), {"nested deeper"});
}

TEST(Bombs, StacksAndNamesHaveLimits) {
  expect_rejected(std::string(1'100'000, 'N'), {"values waiting"});
  expect_rejected(std::string(1'100'000, '('), {"lists in each other"});
  expect_rejected(dict({{std::string(5000, 'n'), kTensor}}), {"name of 5000 bytes"});
  std::string many = "}(" + text(std::string(4000, 'n')) + "}(";
  for (int i = 0; i < 20000; ++i) many += text(std::to_string(i)) + (i == 0 ? kSmall + "q\x01" : "h\x01");
  expect_rejected(many + "uu", {"absurdly many names"});
  expect_error(ErrorKind::input, {"allowed are"}, [] { read_pickle(std::string(kMaxPickleBytes + 1, 'N')); });
}

}  // namespace pytorch_checkpoint_test
