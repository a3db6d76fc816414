#include <qmill/core/convert.h>

#include "plugin_files.h"

#include <algorithm>
#include <cstdlib>

#include <sys/stat.h>

namespace qmill {
namespace {

namespace fs = std::filesystem;
using testing::bad_plugin;
using testing::expect_error;
using testing::good_plugin;
using testing::read_bytes;
using testing::TempDir;
using testing::with_tag;
using testing::write_bytes;

// Nothing of the person's own environment takes part.
class PluginHost : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("XDG_DATA_HOME", (home_ / "data").c_str(), 1);
    ::unsetenv("QMILL_PLUGIN_PATH");
    ::unsetenv("QMILL_TEST_TRACE");
    before_ = fs::current_path();
  }
  void TearDown() override {
    fs::current_path(before_);
    ::unsetenv("XDG_DATA_HOME");
    ::unsetenv("QMILL_PLUGIN_PATH");
    ::unsetenv("QMILL_TEST_TRACE");
  }

  // A folder with copies of these bad plugins.
  fs::path folder_with(std::initializer_list<std::string> names) {
    const fs::path folder = home_ / ("folder" + std::to_string(folders_++));
    fs::create_directory(folder);
    for (const std::string& name : names) fs::copy_file(bad_plugin(name), folder / (name + ".so"));
    return folder;
  }

  static PluginCandidate candidate(const Host& host, const fs::path& file) {
    for (const PluginCandidate& found : host.candidates())
      if (found.file == file) return found;
    throw std::runtime_error("no candidate " + file.string());
  }

  // Converts a model of one layer.
  ConvertReport convert(const Host& host, const std::string& quantizer) {
    ConvertOptions options;
    options.input = home_ / "in.safetensors";
    options.output = home_ / "out.safetensors";
    options.run.overwrite = true;
    options.run.sync = false;
    options.run.threads = 2;
    options.target.quantizer = quantizer;
    testing::write_model(options.input, {{"l.weight", testing::random_weight(16, 32, at::kFloat, 1)}});
    const auto source = host.open(options.input);
    return run_plan(*source, make_plan(host, *source, options));
  }

  TempDir home_;

 private:
  fs::path before_;
  int folders_ = 0;
};

TEST_F(PluginHost, FindsThePluginsOfTheInstallationByItself) {
  const Host host;
  EXPECT_EQ(host.quantizer("rtn").info().name, "rtn");
  EXPECT_EQ(host.folders().back().origin, "installation");
  EXPECT_TRUE(host.folders().back().exists);
}

TEST_F(PluginHost, ListingRunsNoCodeAndUsingDoes) {
  const fs::path folder = folder_with({"tracer"});
  const fs::path trace = home_ / "trace";
  ::setenv("QMILL_TEST_TRACE", trace.c_str(), 1);
  const Host host({folder});
  EXPECT_EQ(candidate(host, folder / "tracer.so").status, PluginCandidate::Status::compatible);
  EXPECT_EQ(candidate(host, folder / "tracer.so").offers.at(0).name, "tracer");
  EXPECT_EQ(host.quantizer("rtn").info().name, "rtn");  // another kind of thing: still not needed
  EXPECT_FALSE(fs::exists(trace));
  EXPECT_EQ(host.filter("tracer").info().name, "tracer");
  EXPECT_TRUE(fs::exists(trace));
  EXPECT_EQ(candidate(host, folder / "tracer.so").status, PluginCandidate::Status::loaded);
  EXPECT_EQ(candidate(host, folder / "tracer.so").version, "1.0");
}

TEST_F(PluginHost, CodeOfARefusedPluginNeverRuns) {
  const fs::path trace = home_ / "trace";
  ::setenv("QMILL_TEST_TRACE", trace.c_str(), 1);
  struct Case {
    const char *from, *to, *reason;
  };
  const Case cases[] = {{"sdk=2.1", "sdk=9.0", "built for SDK 9.0, this program runs 2.1"},
                        {"sdk=2.1", "sdk=2.2", "built for SDK 2.2, this program runs 2.1"},
                        {"torch=", "torch=1.0;x=", "built for LibTorch 1.0, this program runs "},
                        {"abi=libstdc++-cxx11", "abi=libc++", "built for the C++ library libc++, this program runs libstdc++-cxx11"},
                        {"build=", "build=other;x=", "built for build kind other, this program runs "},
                        {";end", ";eND", "no qmill tag"}};
  for (const Case& test : cases) {
    SCOPED_TRACE(test.to);
    const fs::path folder = folder_with({});
    write_bytes(folder / "tracer.so", with_tag(read_bytes(bad_plugin("tracer")), test.from, test.to));
    const Host host({folder});
    const PluginCandidate found = candidate(host, folder / "tracer.so");
    EXPECT_EQ(found.status, PluginCandidate::Status::refused);
    EXPECT_NE(found.reason.find(test.reason), std::string::npos) << found.reason;
    host.filters();
    host.quantizers();
    host.formats();
    EXPECT_THROW(host.filter("tracer"), Error);
    EXPECT_FALSE(fs::exists(trace));
  }
}

TEST_F(PluginHost, APluginThatWasBuiltWithTheHeadersOfAnotherVersionIsRefusedBeforeAnyOfItsCodeRuns) {
  const fs::path trace = home_ / "trace";
  ::setenv("QMILL_TEST_TRACE", trace.c_str(), 1);
  const fs::path folder = folder_with({"sdk_1_0"});
  const Host host({folder});
  host.load_all();
  EXPECT_EQ(host.find_quantizer("old.rounding"), nullptr);
  expect_error(ErrorKind::plugin, {"'old.rounding'", "sdk_1_0.so", "built for SDK 1.0, this program runs 2.1"},
               [&] { host.quantizer("old.rounding"); });
  EXPECT_EQ(candidate(host, folder / "sdk_1_0.so").status, PluginCandidate::Status::refused);
  EXPECT_FALSE(fs::exists(trace));
}

TEST_F(PluginHost, AskingForWhatARefusedPluginOffersGivesItsReason) {
  const fs::path folder = folder_with({});
  write_bytes(folder / "tracer.so", with_tag(read_bytes(bad_plugin("tracer")), "sdk=2.1", "sdk=9.0"));
  const Host host({folder});
  expect_error(ErrorKind::plugin, {"filter 'tracer'", "tracer.so", "refused", "SDK 9.0, this program runs 2.1", "plugins list"},
               [&] { host.filter("tracer"); });
}

TEST_F(PluginHost, AskingForWhatNobodyOffersGivesTheNearestName) {
  const Host host;
  expect_error(ErrorKind::usage, {"no quantizer 'rtm'", "did you mean 'rtn'"}, [&] { host.quantizer("rtm"); });
  expect_error(ErrorKind::usage, {"no filter 'nonsense-filter'", "known:", "t5xxl"}, [&] { host.filter("nonsense-filter"); });
  EXPECT_EQ(host.find_quantizer("rtm"), nullptr);
  EXPECT_EQ(host.find_format("int9"), nullptr);
}

TEST_F(PluginHost, NamesAndAliasesAreTheSameWithHyphenAndUnderscore) {
  const Host host({folder_with({"lies_in_plan"})});
  EXPECT_EQ(host.quantizer("bad.lies_in-plan").info().name, "bad.lies-in-plan");
  EXPECT_EQ(host.format("int8-tensorwise").info().name, "int8");
  EXPECT_EQ(host.quantizer("simple").info().name, "rtn");
  EXPECT_EQ(host.filter("generic-text").info().name, "generic_text");
}

TEST_F(PluginHost, AStrippedPluginWorks) {
  const fs::path folder = folder_with({});
  const std::string command =
      std::string(QMILL_STRIP) + " --strip-all -o '" + (folder / "a.so").string() + "' '" + bad_plugin("same_name").string() + "'";
  ASSERT_EQ(std::system(command.c_str()), 0);
  const Host host({folder});
  EXPECT_EQ(host.quantizer("rtn").info().summary, "the other rtn");
}

TEST_F(PluginHost, ACreateFunctionThatThrowsIsTheReasonOfARefusal) {
  const fs::path folder = folder_with({"throws_in_create"});
  const Host host({folder});
  expect_error(ErrorKind::plugin, {"'bad.throws-in-create'", "throws_in_create.so", "refused", "no licence found"},
               [&] { host.quantizer("bad.throws-in-create"); });
  EXPECT_EQ(candidate(host, folder / "throws_in_create.so").status, PluginCandidate::Status::refused);
}

TEST_F(PluginHost, ACreateFunctionThatMakesNothingIsTheReasonOfARefusal) {
  const Host host({folder_with({"makes_nothing"})});
  expect_error(ErrorKind::plugin, {"makes_nothing.so", "made nothing", "bad.makes-nothing"}, [&] { host.quantizer("bad.makes-nothing"); });
}

TEST_F(PluginHost, AnObjectWithAnotherNameThanWasOfferedIsTheReasonOfARefusal) {
  const Host host({folder_with({"other_name"})});
  expect_error(ErrorKind::plugin, {"offers 'bad.first' but made 'bad.second'"}, [&] { host.quantizer("bad.first"); });
  expect_error(ErrorKind::usage, {"no quantizer 'bad.second'"}, [&] { host.quantizer("bad.second"); });
}

TEST_F(PluginHost, AMissingSymbolIsFoundWhenLoadingAndSaidInTheWordsOfTheSystem) {
  const Host host({folder_with({"missing_symbol"})});
  expect_error(ErrorKind::plugin, {"missing_symbol.so", "refused", "cannot load", "qmill_test_function_that_no_library_has"},
               [&] { host.quantizer("bad.missing-symbol"); });
}

TEST_F(PluginHost, ALayerThatIsNotAsPlannedIsAnErrorWithPluginTensorAndBothSides) {
  const Host host({folder_with({"lies_in_plan"})});
  expect_error(ErrorKind::plugin, {"'l.weight'", "bad.lies-in-plan", "it returned", "I8", "its plan said", "F32"},
               [&] { convert(host, "bad.lies-in-plan"); });
  EXPECT_FALSE(fs::exists(home_ / "out.safetensors"));
}

TEST_F(PluginHost, AQuantizerMayNotSendLayersToAFormatThatIsNotItsOwn) {
  const Host host({folder_with({"foreign_format"})});
  expect_error(ErrorKind::plugin, {"bad.foreign-format", "'int4'", "not one of its own"}, [&] { convert(host, "bad.foreign-format"); });
  EXPECT_FALSE(fs::exists(home_ / "out.safetensors"));
}

TEST_F(PluginHost, WhatAQuantizerOfOneFormatCannotWriteGoesToPlainRounding) {
  const Host host({folder_with({"int4_only"})});
  ConvertOptions options;
  options.input = home_ / "in.safetensors";
  options.output = home_ / "out.safetensors";
  options.target.quantizer = "bad.int4-only";
  options.layers.config = parse_layer_config(R"({"_default": {"optimizer": "bad.int4-only", "options": {"speed": "fast"}}})");
  testing::write_sparse_model(options.input, {{"a.weight", DType::f32, {16, 64}}, {"b.weight", DType::f32, {16, 32}}});
  const auto source = host.open(options.input);
  const Plan plan = make_plan(host, *source, options);
  ASSERT_EQ(plan.decisions.size(), 2u);
  EXPECT_EQ(plan.decisions[0].label.name, "convrot_w4a4");
  EXPECT_EQ(plan.decisions[0].quantizer->info().name, "bad.int4-only");
  EXPECT_EQ(plan.decisions[0].target.options.text("speed"), "fast");
  EXPECT_EQ(plan.decisions[1].label.name, "int8_tensorwise");
  EXPECT_EQ(plan.decisions[1].quantizer->info().name, "rtn");
  EXPECT_TRUE(plan.decisions[1].target.layout.note.starts_with("64 does not divide its 32 columns: int8"));
}

TEST_F(PluginHost, WhatIsThrownAndIsNoExceptionBecomesAnErrorWithPluginAndTensor) {
  const Host host({folder_with({"throws_int"})});
  expect_error(ErrorKind::plugin, {"'l.weight'", "bad.throws-int", "quantize", "not an exception"},
               [&] { convert(host, "bad.throws-int"); });
}

TEST_F(PluginHost, AWrongSchemaIsAnErrorThatNamesThePluginAndTheOption) {
  const Host host({folder_with({"wrong_schema"})});
  expect_error(ErrorKind::plugin, {"bad.wrong-schema", "'speed'"}, [&] { convert(host, "bad.wrong-schema"); });
}

TEST_F(PluginHost, BrokenPluginsDoNotStopARunThatDoesNotNeedThem) {
  const fs::path folder = folder_with(
      {"lies_in_plan", "makes_nothing", "missing_symbol", "other_name", "throws_in_create", "throws_int", "tracer", "wrong_schema"});
  write_bytes(folder / "text.so", "I am no library");
  write_bytes(folder / "zeros.so", std::string(10'000, '\0'));
  write_bytes(folder / "short.so", read_bytes(good_plugin("rtn")).substr(0, 5000));
  fs::create_directory(folder / "folder.so");
  fs::create_symlink("nowhere", folder / "dangling.so");
  fs::create_symlink("loop.so", folder / "loop.so");
  ASSERT_EQ(::mkfifo((folder / "pipe.so").c_str(), 0600), 0);
  const Host host({folder});
  EXPECT_EQ(convert(host, "auto").layers.size(), 1u);
  for (const char* name : {"makes_nothing", "missing_symbol", "other_name", "throws_in_create", "text", "zeros", "short", "folder",
                           "dangling", "loop", "pipe"}) {
    const PluginCandidate found = candidate(host, folder / (std::string(name) + ".so"));
    EXPECT_EQ(plugin_status_name(found.status), "refused") << name;
    EXPECT_FALSE(found.reason.empty()) << name;
  }
}

TEST_F(PluginHost, FilesWithOtherEndingsAreNotLookedAt) {
  const fs::path folder = folder_with({});
  fs::copy_file(bad_plugin("same_name"), folder / "same_name.txt");
  const Host host({folder});
  for (const PluginCandidate& found : host.candidates()) EXPECT_NE(found.file.extension(), ".txt");
  EXPECT_EQ(host.quantizer("rtn").info().summary, "round to nearest");
}

TEST_F(PluginHost, TheFirstInSearchOrderWinsAndTheOtherIsListedWithWhatShadowsIt) {
  const fs::path folder = folder_with({"same_name"});
  const Host host({folder});
  EXPECT_EQ(host.quantizer("rtn").info().summary, "the other rtn");
  const std::vector<const Quantizer*> all = host.quantizers();
  EXPECT_EQ(std::count_if(all.begin(), all.end(), [](const Quantizer* quantizer) { return quantizer->info().name == "rtn"; }), 1);
  const PluginCandidate shadowed = candidate(host, fs::canonical(good_plugin("rtn")));
  EXPECT_EQ(shadowed.status, PluginCandidate::Status::shadowed);
  EXPECT_NE(shadowed.reason.find((folder / "same_name.so").string()), std::string::npos) << shadowed.reason;
  EXPECT_NE(shadowed.reason.find("'rtn'"), std::string::npos);
}

TEST_F(PluginHost, AnOfferOfTheSameNameShadowsToo) {
  const fs::path first = folder_with({"tracer"});
  const fs::path second = folder_with({});
  write_bytes(second / "b.so", with_tag(read_bytes(bad_plugin("tracer")), "name=tracer", "name=elsewhere"));
  const Host host({first, second});
  const PluginCandidate shadowed = candidate(host, second / "b.so");
  EXPECT_EQ(shadowed.status, PluginCandidate::Status::shadowed);
  EXPECT_NE(shadowed.reason.find("the filter 'tracer'"), std::string::npos) << shadowed.reason;
}

TEST_F(PluginHost, ARefusedPluginShadowsNothing) {
  const fs::path folder = folder_with({});
  write_bytes(folder / "a.so", with_tag(read_bytes(bad_plugin("same_name")), "sdk=2.1", "sdk=9.0"));
  const Host host({folder});
  EXPECT_EQ(host.quantizer("rtn").info().summary, "round to nearest");
}

TEST_F(PluginHost, ThePluginOfALaterFolderIsTheOneThatIsShadowed) {
  ::setenv("QMILL_PLUGIN_PATH", fs::canonical(QMILL_TEST_PLUGINS).c_str(), 1);
  const fs::path user = home_ / "data/qmill/plugins";
  fs::create_directories(user);
  fs::copy_file(bad_plugin("same_name"), user / "same_name.so");
  const Host host;
  EXPECT_EQ(host.quantizer("rtn").info().summary, "round to nearest");
  EXPECT_EQ(candidate(host, user / "same_name.so").status, PluginCandidate::Status::shadowed);
}

TEST_F(PluginHost, TheSearchOrderIsArgumentsThenPathThenUserThenInstallation) {
  const fs::path a = folder_with({}), b = folder_with({}), c = folder_with({}), d = folder_with({});
  ::setenv("QMILL_PLUGIN_PATH", (c.string() + ":" + d.string()).c_str(), 1);
  const Host host({a, b});
  std::vector<std::string> order;
  for (const SearchFolder& folder : host.folders()) order.push_back(folder.origin + " " + folder.folder.string());
  ASSERT_EQ(order.size(), 6u);
  order.pop_back();
  EXPECT_EQ(order, (std::vector<std::string>{"--plugin-dir " + a.string(), "--plugin-dir " + b.string(), "QMILL_PLUGIN_PATH " + c.string(),
                                             "QMILL_PLUGIN_PATH " + d.string(), "user " + (home_ / "data/qmill/plugins").string()}));
  EXPECT_EQ(host.folders().back().origin, "installation");
}

TEST_F(PluginHost, TheEarlierPartOfThePathWins) {
  const fs::path first = folder_with({"same_name"}), second = folder_with({"same_name"});
  ::setenv("QMILL_PLUGIN_PATH", (first.string() + ":" + second.string()).c_str(), 1);
  const Host host;
  host.quantizers();
  EXPECT_EQ(candidate(host, first / "same_name.so").status, PluginCandidate::Status::loaded);
  EXPECT_EQ(candidate(host, second / "same_name.so").status, PluginCandidate::Status::shadowed);
}

TEST_F(PluginHost, AnEmptyPartOfAPathNeverMeansTheCurrentFolder) {
  const fs::path current = folder_with({"same_name"});
  fs::current_path(current);
  for (const char* path : {"", ":", "::", ":/nonexistent:", "/nonexistent:"}) {
    ::setenv("QMILL_PLUGIN_PATH", path, 1);
    const Host host({fs::path()});
    for (const SearchFolder& folder : host.folders()) EXPECT_NE(folder.folder, current) << path;
    EXPECT_EQ(host.quantizer("rtn").info().summary, "round to nearest") << path;
  }
  ::setenv("QMILL_PLUGIN_PATH", ".", 1);  // named, it is meant
  EXPECT_EQ(Host().quantizer("rtn").info().summary, "the other rtn");
}

TEST_F(PluginHost, AnEmptyVariableForTheUsersFolderNeverMeansTheCurrentFolder) {
  const fs::path current = folder_with({});
  fs::create_directories(current / "qmill/plugins");
  fs::create_directories(current / ".local/share/qmill/plugins");
  fs::copy_file(bad_plugin("same_name"), current / "qmill/plugins/a.so");
  fs::copy_file(bad_plugin("same_name"), current / ".local/share/qmill/plugins/a.so");
  fs::current_path(current);
  const std::string home = std::getenv("HOME") == nullptr ? "" : std::getenv("HOME");
  ::setenv("XDG_DATA_HOME", "", 1);
  ::setenv("HOME", "", 1);
  EXPECT_EQ(Host().quantizer("rtn").info().summary, "round to nearest");
  ::setenv("HOME", home.c_str(), 1);
}

TEST_F(PluginHost, AFolderThatIsNamedTwiceIsSearchedOnce) {
  const fs::path folder = folder_with({"tracer"});
  const Host host({folder, folder, folder / "."});
  int found = 0;
  for (const PluginCandidate& plugin : host.candidates()) found += plugin.name == "tracer" ? 1 : 0;
  EXPECT_EQ(found, 1);
}

TEST_F(PluginHost, AMissingFolderIsListedAndNoError) {
  const Host host({home_ / "missing"});
  EXPECT_FALSE(host.folders().at(0).exists);
  EXPECT_EQ(host.quantizer("rtn").info().name, "rtn");
}

TEST_F(PluginHost, AFolderThatEverybodyMayWriteToIsNotUsedAndSaysSo) {
  const fs::path folder = folder_with({"same_name"});
  fs::permissions(folder, fs::perms::others_write, fs::perm_options::add);
  const Host host({folder});
  EXPECT_NE(host.folders().at(0).problem.find("everybody may write to"), std::string::npos) << host.folders().at(0).problem;
  EXPECT_EQ(host.quantizer("rtn").info().summary, "round to nearest");
  fs::permissions(folder, fs::perms::others_write, fs::perm_options::remove);
  EXPECT_EQ(Host({folder}).quantizer("rtn").info().summary, "the other rtn");
}

TEST_F(PluginHost, AFileThatEverybodyMayWriteToIsRefused) {
  const fs::path folder = folder_with({"same_name"});
  fs::permissions(folder / "same_name.so", fs::perms::others_write, fs::perm_options::add);
  const Host host({folder});
  EXPECT_EQ(host.quantizer("rtn").info().summary, "round to nearest");
  const PluginCandidate found = candidate(host, folder / "same_name.so");
  EXPECT_EQ(found.status, PluginCandidate::Status::refused);
  EXPECT_NE(found.reason.find("everybody may write to"), std::string::npos) << found.reason;
}

TEST_F(PluginHost, ManyHostsMayLiveOneAfterTheOther) {
  const fs::path folder = folder_with({"same_name"});
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Host({folder}).quantizer("rtn").info().summary, "the other rtn");
    EXPECT_EQ(Host().quantizer("rtn").info().summary, "round to nearest");
  }
}

TEST_F(PluginHost, APathThatDoesNotExistOrThatNoLoaderReadsIsAnError) {
  const Host host;
  expect_error(ErrorKind::io, {"missing.safetensors"}, [&] { host.open(home_ / "missing.safetensors"); });
  write_bytes(home_ / "model.onnx", "something else");
  expect_error(ErrorKind::unsupported, {"model.onnx", "no loader", ".safetensors"}, [&] { host.open(home_ / "model.onnx"); });
}

}  // namespace
}  // namespace qmill
