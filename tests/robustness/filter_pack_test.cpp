// Packs of filters: what is read, what is refused with which sentence, and what the host makes of them.
#include <qmill/core/host.h>

#include "plugin_files.h"
#include "host/filter_pack.h"

#include <algorithm>
#include <cstdlib>

#include <sys/stat.h>

namespace qmill {
namespace {

namespace fs = std::filesystem;
using testing::bad_plugin;
using testing::error_of;
using testing::expect_error;
using testing::TempDir;
using testing::write_bytes;

// A pack with these members of its only filter.
std::string with_filter(const std::string& members, const std::string& pack_members = "") {
  return R"({"filter_pack": 1, "name": "acme", "version": "1.2", )" + pack_members + R"("filters": [{)" + members + "}]}";
}

const std::string kHead = R"("name": "acme.one", "category": "image", "summary": "a test")";

std::string with_architecture(const std::string& members) {
  return with_filter(kHead + R"(, "keep": ["a"], "architectures": [{)" + members + "}]");
}

void refused(const std::string& text, std::initializer_list<std::string_view> parts) {
  SCOPED_TRACE(text.substr(0, 200));
  expect_error(ErrorKind::input, parts, [&] { parse_filter_pack(text); });
  const std::string message = error_of([&] { parse_filter_pack(text); }).message();
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

TEST(FilterPack, HoldsFiltersWithListsInPlaceOfTheirNames) {
  const FilterPack pack = parse_filter_pack(with_filter(kHead + R"(, "keep": ["x", "@both", "y"], "remove": ["@norms"], "architectures": [
        {"name": "one", "order": 3, "all": ["a", "b.c"], "none": ["d"], "dimensions": [{"tensor": "a.weight", "axis": 1, "equals": 64}]},
        {"name": "two", "order": 4, "all": ["e"], "renamed_by_readers": true}])",
                                                        R"("lists": {"norms": ["n1", "n2"], "both": ["@norms", "z"]}, )"));
  EXPECT_EQ(pack.name, "acme");
  EXPECT_EQ(pack.version, "1.2");
  ASSERT_EQ(pack.filters.size(), 1u);
  const FilterData& filter = pack.filters[0];
  EXPECT_EQ(filter.info.name, "acme.one");
  EXPECT_EQ(filter.info.category, "image");
  EXPECT_EQ(filter.info.summary, "a test");
  EXPECT_EQ(filter.keep, (std::vector<std::string>{"x", "n1", "n2", "z", "y"}));
  EXPECT_EQ(filter.remove, (std::vector<std::string>{"n1", "n2"}));
  ASSERT_EQ(filter.fingerprints.size(), 2u);
  EXPECT_EQ(filter.fingerprints[0].architecture, "one");
  EXPECT_EQ(filter.fingerprints[0].order, 3);
  EXPECT_EQ(filter.fingerprints[0].all, (std::vector<std::string>{"a", "b.c"}));
  EXPECT_EQ(filter.fingerprints[0].none, (std::vector<std::string>{"d"}));
  ASSERT_EQ(filter.fingerprints[0].dimensions.size(), 1u);
  EXPECT_EQ(filter.fingerprints[0].dimensions[0].tensor, "a.weight");
  EXPECT_EQ(filter.fingerprints[0].dimensions[0].axis, 1u);
  EXPECT_EQ(filter.fingerprints[0].dimensions[0].equals, 64);
  EXPECT_FALSE(filter.fingerprints[0].renamed_by_readers);
  EXPECT_TRUE(filter.fingerprints[1].renamed_by_readers);
}

TEST(FilterPack, TextThatIsNoPackIsRefused) {
  refused("", {"not valid JSON at byte 1"});
  refused("{", {"not valid JSON"});
  refused("[]", {"not a filter pack", "\"filter_pack\": 1"});
  refused("{}", {"not a filter pack"});
  refused(R"({"layer_patterns": {}})", {"not a filter pack"});
  refused(R"({"filter_pack": 2})", {"version 2", "reads version 1"});
  refused(R"({"filter_pack": "1"})", {"version \"1\""});
  refused(R"({"filter_pack": 1})", {"no 'name'"});
  refused("{\"filter_pack\": 1, \"name\": \"a\xff\"}", {"not UTF-8"});
  refused(std::string("{\"filter_pack\": 1}\0", 19), {"not valid JSON at byte 19"});
  refused(std::string(10'000, '['), {"nested deeper"});
  refused(std::string((1 << 20) + 1, ' '), {"1048577 bytes", "allowed for filters are 1048576"});
  refused(R"({"filter_pack": 1, "filter_pack": 1})", {"names 'filter_pack' twice"});
}

TEST(FilterPack, UnknownKeysAreRefusedWithTheNearestKnownOne) {
  refused(R"({"filter_pack": 1, "name": "a", "version": "1", "filter": []})", {"no key 'filter'", "did you mean 'filters'"});
  refused(with_filter(kHead + R"(, "keeps": ["a"])"), {"no key 'keeps'", "did you mean 'keep'"});
  refused(with_architecture(R"("name": "a", "order": 1, "al": ["x"])"), {"filter 'acme.one'", "no key 'al'", "did you mean 'all'"});
  refused(with_architecture(R"("name": "a", "order": 1, "all": ["x"], "dimensions": [{"tensor": "x", "axes": 1, "equals": 1}])"),
          {"architecture 'a'", "no key 'axes'", "did you mean 'axis'"});
}

TEST(FilterPack, WrongTypesAndEmptyListsAreRefused) {
  refused(with_filter(R"("name": 3, "category": "image", "summary": "s", "keep": ["a"])"), {"'name' is 3", "expected a text"});
  refused(with_filter(R"("name": "a b", "category": "image", "summary": "s", "keep": ["a"])"),
          {"'name' is \"a b\"", "allowed are letters"});
  refused(with_filter(R"("name": "", "category": "image", "summary": "s", "keep": ["a"])"), {"'name' is empty"});
  refused(with_filter(R"("name": ")" + std::string(65, 'a') + R"(", "category": "image", "summary": "s", "keep": ["a"])"),
          {"'name' has 65 bytes", "allowed are 64"});
  refused(with_filter(R"("name": "a", "category": "imge", "summary": "s", "keep": ["a"])"), {"no category 'imge'", "did you mean 'image'"});
  refused(with_filter(R"("name": "a", "category": "image", "keep": ["a"])"), {"filter 'a'", "no 'summary'"});
  refused(with_filter(R"("name": "a", "category": "image", "summary": "s\nt", "keep": ["a"])"), {"'summary' has a control character"});
  refused(with_filter(kHead), {"filter 'acme.one'", "neither 'keep' nor 'remove'"});
  refused(with_filter(kHead + R"(, "keep": "a")"), {"'keep' is \"a\"", "expected a list"});
  refused(with_filter(kHead + R"(, "keep": [])"), {"'keep' is an empty list"});
  refused(with_filter(kHead + R"(, "keep": [null])"), {"'keep' is null", "expected a text"});
  refused(with_filter(kHead + R"(, "keep": [""])"), {"'keep' is empty"});
  refused(with_filter(kHead + R"(, "keep": ["a"], "architectures": [])"), {"'architectures' is an empty list"});
  refused(with_filter(kHead + R"(, "keep": ["a"], "architectures": [1])"), {"1 stands where an object was expected"});
  refused(R"({"filter_pack": 1, "name": "a", "version": "1", "filters": []})", {"'filters' is an empty list"});
  refused(R"({"filter_pack": 1, "name": "a", "version": "1", "filters": [[]]})", {"[] stands where an object was expected"});
  refused(with_architecture(R"("name": "a", "order": 1)"), {"architecture 'a'", "no 'all'"});
  refused(with_architecture(R"("name": "a", "order": 1, "all": [])"), {"'all' is an empty list"});
  refused(with_architecture(R"("name": "a", "order": 1, "all": ["a.*"])"), {"'all' has 'a.*'", "star stands for nothing"});
  for (const char* order : {"-1", "1.5", "\"1\"", "18446744073709551615", "2147483648", "null"})
    refused(with_architecture(std::string(R"("name": "a", "all": ["x"], "order": )") + order),
            {"'order' is", "expected an integer from 0"});
  for (const char* axis : {"-1", "8", "true"})
    refused(
        with_architecture(std::string(R"("name": "a", "order": 1, "all": ["x"], "dimensions": [{"tensor": "x", "equals": 1, "axis": )") +
                          axis + "}]"),
        {"'axis' is", "expected an integer from 0 to 7"});
  refused(with_architecture(R"("name": "a", "order": 1, "all": ["x"], "renamed_by_readers": 1)"),
          {"'renamed_by_readers' is 1", "true or false"});
}

TEST(FilterPack, ReferencesAreToListsThatComeBefore) {
  refused(with_filter(kHead + R"(, "keep": ["@norm"])", R"("lists": {"norms": ["n"]}, )"), {"no list 'norm'", "did you mean 'norms'"});
  refused(with_filter(kHead + R"(, "keep": ["a"])", R"("lists": {"one": ["@two"], "two": ["a"]}, )"), {"list 'one'", "no list 'two'"});
  refused(with_filter(kHead + R"(, "keep": ["a"])", R"("lists": {"one": ["@one"]}, )"), {"list 'one'", "no list 'one'"});
  refused(with_filter(kHead + R"(, "keep": ["a"])", R"("lists": [], )"), {"'lists' is []", "expected an object"});
}

// Lists of lists of lists would grow without bound.
TEST(FilterPack, ReferencesThatMultiplyAreRefused) {
  std::string lists = R"("lists": {"l0": ["a", "b", "c", "d", "e", "f", "g", "h"])";
  for (int i = 1; i < 12; ++i) {
    const std::string before = "\"@l" + std::to_string(i - 1) + "\"";
    lists += ", \"l" + std::to_string(i) + "\": [" + before + ", " + before + ", " + before + ", " + before + "]";
  }
  refused(with_filter(kHead + R"(, "keep": ["a"])", lists + "}, "), {"more than 10000 patterns"});
}

// Each list is within its limit; what the filters make of them is not.
TEST(FilterPack, ThePackAsAWholeIsLimited) {
  const auto pack = [](int filters, int patterns, int pattern_bytes) {
    std::string list = R"("p": [)";
    for (int i = 0; i < patterns; ++i) list += (i == 0 ? "\"" : ",\"") + std::string(static_cast<std::size_t>(pattern_bytes), 'a') + "\"";
    std::string text = R"({"filter_pack": 1, "name": "a", "version": "1", "lists": {)" + list + R"(]}, "filters": [)";
    for (int i = 0; i < filters; ++i)
      text +=
          (i == 0 ? R"({"name": "f)" : R"(,{"name": "f)") + std::to_string(i) + R"(", "category": "text", "summary": "s", "keep": ["@p"]})";
    return text + "]}";
  };
  refused(pack(10, 10'000, 1), {"filter 'f9'", "more than 100000 patterns"});
  EXPECT_EQ(parse_filter_pack(pack(9, 10'000, 1)).filters.back().keep.size(), 10'000u);
  refused(pack(32, 2048, 256), {"filter 'f31'", "more than 16777216 bytes"});
  EXPECT_EQ(parse_filter_pack(pack(31, 2048, 256)).filters.size(), 31u);

  // Lists that nothing uses are held, too.
  std::string all = R"("a")";
  for (int i = 1; i < 10'000; ++i) all += R"(,"a")";
  std::string lists = R"("lists": {"l0": [)" + all + "]";
  for (int i = 1; i < 11; ++i) lists += ", \"l" + std::to_string(i) + R"(": ["@l0"])";
  refused(with_filter(kHead + R"(, "keep": ["a"])", lists + "}, "), {"list 'l10'", "more than 100000 patterns"});
}

TEST(FilterPack, NamesMayNotLookLikeTheNegativeOfAFlag) {
  for (const std::string name : {"no-flux", "no_flux", "no-"})
    refused(with_filter(R"("name": ")" + name + R"(", "category": "image", "summary": "s", "keep": ["a"])"),
            {"'" + name + "'", "begins with 'no-'"});
  for (const std::string name : {"no", "nora", "acme.no-flux"})
    EXPECT_EQ(parse_filter_pack(with_filter(R"("name": ")" + name + R"(", "category": "image", "summary": "s", "keep": ["a"])"))
                  .filters[0]
                  .info.name,
              name);
}

TEST(FilterPack, NamesAreReservedOrTakenOnlyOnce) {
  refused(with_filter(R"("name": "auto", "category": "image", "summary": "s", "keep": ["a"])"), {"'auto'", "reserved"});
  const std::string filter = "{" + kHead + R"(, "keep": ["a"]})";
  std::string twin = filter;
  twin.replace(twin.find("acme.one"), 8, "acme-one");
  std::string other = filter;
  other.replace(other.find("acme.one"), 8, "acme_one");
  refused(R"({"filter_pack": 1, "name": "a", "version": "1", "filters": [)" + twin + "," + other + "]}", {"two filters named 'acme_one'"});
}

// Folders of the test are the only ones with more than the installation has.
class FilterPackHost : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("XDG_DATA_HOME", (home_ / "data").c_str(), 1);
    ::unsetenv("QMILL_PLUGIN_PATH");
  }
  void TearDown() override { ::unsetenv("XDG_DATA_HOME"); }

  fs::path folder(const std::string& name) {
    fs::create_directory(home_ / name);
    return home_ / name;
  }

  static PluginCandidate candidate(const Host& host, const fs::path& file) {
    for (const PluginCandidate& found : host.candidates())
      if (found.file == file) return found;
    throw std::runtime_error("no candidate " + file.string());
  }

  static std::string pack(const std::string& name, const std::string& filter, const std::string& keep) {
    return R"({"filter_pack": 1, "name": ")" + name + R"(", "version": "3.4", "filters": [{"name": ")" + filter +
           R"(", "category": "image", "summary": "s", "keep": [")" + keep + R"("]}]})";
  }

  TempDir home_;
};

TEST_F(FilterPackHost, APackInAFolderIsAPlugin) {
  const fs::path a = folder("a");
  write_bytes(a / "mine.json", pack("acme", "acme.one", "head"));
  const Host host({a});
  PluginCandidate found = candidate(host, a / "mine.json");
  EXPECT_EQ(found.name, "acme");
  EXPECT_EQ(found.status, PluginCandidate::Status::compatible);
  ASSERT_EQ(found.offers.size(), 1u);
  EXPECT_EQ(found.offers[0].kind, "filter");
  EXPECT_EQ(found.offers[0].name, "acme.one");
  const ModelFilter& filter = host.filter("acme.one");
  EXPECT_EQ(filter.classify({"head.weight", DType::bf16, {8, 8}}).treatment, Treatment::keep);
  EXPECT_EQ(filter.classify({"body.weight", DType::bf16, {8, 8}}).treatment, Treatment::quantize);
  found = candidate(host, a / "mine.json");
  EXPECT_EQ(found.status, PluginCandidate::Status::loaded);
  EXPECT_EQ(found.version, "3.4");
}

TEST_F(FilterPackHost, AMalformedPackIsListedWithItsReasonAndStopsNobodyElse) {
  const fs::path a = folder("a");
  write_bytes(a / "cut.json", pack("acme", "acme.one", "head").substr(0, 40));
  write_bytes(a / "empty.json", "");
  write_bytes(a / "other.json", R"({"filter_pack": 1, "name": "b", "version": "1", "filters": [{"name": "acme.two", "keep": ["a"]}]})");
  fs::create_directory(a / "folder.json");
  ASSERT_EQ(::mkfifo((a / "pipe.json").c_str(), 0600), 0);
  fs::create_symlink(a / "nowhere", a / "link.json");
  const Host host({a});
  for (const char* name : {"cut.json", "empty.json", "other.json", "folder.json", "pipe.json", "link.json"}) {
    const PluginCandidate found = candidate(host, a / name);
    EXPECT_EQ(found.status, PluginCandidate::Status::refused) << name;
    EXPECT_FALSE(found.reason.empty()) << name;
    EXPECT_EQ(found.reason.find('\n'), std::string::npos) << found.reason;
  }
  EXPECT_NE(candidate(host, a / "cut.json").reason.find("not valid JSON at byte"), std::string::npos);
  EXPECT_EQ(host.filter("t5xxl").info().name, "t5xxl");
  expect_error(ErrorKind::plugin, {"filter 'acme.two'", "other.json", "refused", "no 'category'", "docs/filters.md"},
               [&] { host.filter("acme.two"); });
}

TEST_F(FilterPackHost, APackThatEverybodyMayChangeIsRefused) {
  const fs::path a = folder("a");
  write_bytes(a / "mine.json", pack("acme", "acme.one", "head"));
  ASSERT_EQ(::chmod((a / "mine.json").c_str(), 0666), 0);
  const Host host({a});
  EXPECT_EQ(candidate(host, a / "mine.json").status, PluginCandidate::Status::refused);
  EXPECT_NE(candidate(host, a / "mine.json").reason.find("everybody may write"), std::string::npos);
  ASSERT_EQ(::chmod((a / "mine.json").c_str(), 0644), 0);
  ASSERT_EQ(::chmod(a.c_str(), 0777), 0);
  const Host other({a});
  EXPECT_THROW(candidate(other, a / "mine.json"), std::runtime_error);
  EXPECT_NE(other.folders().front().problem.find("everybody may write"), std::string::npos);
}

TEST_F(FilterPackHost, OfAPackOnlyTheFiltersThatAreTakenAreShadowed) {
  const fs::path a = folder("a");
  write_bytes(a / "mine.json", pack("mine", "t5xxl", "nothing"));
  const Host host({a});
  EXPECT_EQ(host.filter("t5xxl").classify({"shared.weight", DType::bf16, {8, 8}}).treatment, Treatment::quantize);
  EXPECT_EQ(host.filter("mistral").info().name, "mistral");  // of the same pack as the shadowed one
  const std::vector<const ModelFilter*> all = host.filters();
  EXPECT_EQ(std::count_if(all.begin(), all.end(), [](const ModelFilter* filter) { return filter->info().name == "t5xxl"; }), 1);
  const PluginCandidate text = candidate(host, fs::canonical(QMILL_TEST_PLUGINS) / "filters_text.json");
  EXPECT_EQ(text.status, PluginCandidate::Status::loaded);
  EXPECT_NE(text.reason.find("the filter 't5xxl' comes from '" + (a / "mine.json").string() + "'"), std::string::npos) << text.reason;
}

TEST_F(FilterPackHost, APackWithNothingLeftOrATakenNameIsShadowed) {
  const fs::path a = folder("a");
  const fs::path b = folder("b");
  write_bytes(a / "one.json", pack("one", "acme.one", "head"));
  write_bytes(b / "two.json", pack("two", "acme.one", "tail"));
  write_bytes(b / "three.json", pack("one", "acme.three", "tail"));
  const Host host({a, b});
  EXPECT_EQ(candidate(host, b / "two.json").status, PluginCandidate::Status::shadowed);
  EXPECT_EQ(candidate(host, b / "three.json").status, PluginCandidate::Status::shadowed);
  EXPECT_NE(candidate(host, b / "three.json").reason.find("the plugin 'one'"), std::string::npos);
  EXPECT_THROW(host.filter("acme.three"), Error);
}

TEST_F(FilterPackHost, PacksAndLibrariesShareTheNamesOfFilters) {
  const fs::path a = folder("a");
  fs::copy_file(bad_plugin("tracer"), a / "tracer.so");
  const fs::path b = folder("b");
  write_bytes(b / "mine.json", R"({"filter_pack": 1, "name": "mine", "version": "1", "filters": [
    {"name": "tracer", "category": "text", "summary": "s", "keep": ["a"]},
    {"name": "acme.two", "category": "text", "summary": "s", "keep": ["a"]}]})");
  const Host host({a, b});
  EXPECT_EQ(host.filter("tracer").info().summary, "keeps nothing");
  EXPECT_EQ(host.filter("acme.two").info().summary, "s");
  const Host turned({b, a});
  EXPECT_EQ(turned.filter("tracer").info().summary, "s");
  EXPECT_EQ(candidate(turned, a / "tracer.so").status, PluginCandidate::Status::shadowed);
}

TEST_F(FilterPackHost, ALibraryMayNotTakeTheReservedNameEither) {
  const fs::path a = folder("a");
  write_bytes(a / "tracer.so", testing::with_tag(testing::read_bytes(bad_plugin("tracer")), "filter=tracer", "filter=auto"));
  const Host host({a});
  EXPECT_EQ(candidate(host, a / "tracer.so").status, PluginCandidate::Status::refused);
  EXPECT_NE(candidate(host, a / "tracer.so").reason.find("'auto' is reserved"), std::string::npos);
}

}  // namespace
}  // namespace qmill
