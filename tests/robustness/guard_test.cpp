// Whatever a plugin throws, wherever it is called, is one Error that names it and the tensor.
#include "plugin_files.h"

#include <qmill/core/compare.h>
#include <qmill/core/conversion.h>

#include <cstdlib>

namespace qmill {
namespace {

namespace fs = std::filesystem;
using testing::bad_plugin;
using testing::error_of;
using testing::random_weight;
using testing::TempDir;

class Guard : public ::testing::Test {
 protected:
  void TearDown() override { ::unsetenv("QMILL_TEST_THROW"); }

  fs::path folder_with(const std::string& name) {
    const fs::path folder = home_ / "plugins";
    fs::create_directories(folder);
    fs::copy_file(bad_plugin(name), folder / (name + ".so"), fs::copy_options::overwrite_existing);
    return folder;
  }

  ConvertOptions options() {
    ConvertOptions options;
    options.input = home_ / "in.safetensors";
    options.output = home_ / "out.safetensors";
    options.run.overwrite = true;
    options.run.sync = false;
    options.target.format = "bad.format";
    testing::write_model(options.input, {{"l.weight", random_weight(16, 256, at::kFloat, 1)}});
    return options;
  }

  static void expect_names(const Error& error, std::initializer_list<std::string_view> parts) {
    const std::string text = error.what();
    EXPECT_EQ(error_kind_name(error.kind()), "plugin") << text;
    for (const std::string_view part : parts) {
      const std::size_t found = text.find(part);
      EXPECT_NE(found, std::string::npos) << part << " in " << text;
    }
    const std::size_t context = text.find("tensor 'l.weight'");
    if (context != std::string::npos) {
      EXPECT_EQ(text.find("tensor 'l.weight'", context + 1), std::string::npos) << text;
    }
  }

  TempDir home_;
};

TEST_F(Guard, TheFormatWorksAsLongAsItDoesNotThrow) {
  const Host host({folder_with("throwing_format"), QMILL_TEST_PLUGINS});
  Conversion(host, options()).run();
  EXPECT_EQ(compare_models(host, *host.open(options().output), *host.open(options().input), 1).size(), 1u);
}

TEST_F(Guard, FunctionsOfAFormatThatAConversionCalls) {
  const Host host({folder_with("throwing_format"), QMILL_TEST_PLUGINS});
  ASSERT_NE(host.find_format("bad.format"), nullptr);
  for (const char* function : {"layout", "misfit", "label", "outputs", "encode", "decode", "scalings"})
    for (const std::string what : {"", " int"}) {
      ::setenv("QMILL_TEST_THROW", (function + what).c_str(), 1);
      const bool is_of_the_run = function == std::string("scalings");
      expect_names(error_of([&] { Conversion(host, options()).run(); }),
                   {"plugin 'bad.format'", function, what.empty() ? "out of luck" : "not an exception", is_of_the_run ? "" : "'l.weight'"});
      EXPECT_FALSE(fs::exists(home_ / "out.safetensors"));
    }
}

TEST_F(Guard, FunctionsOfAFormatThatReadingCalls) {
  const Host host({folder_with("throwing_format"), QMILL_TEST_PLUGINS});
  Conversion(host, options()).run();
  for (const char* function : {"recognise", "original", "decode"}) {
    ::setenv("QMILL_TEST_THROW", function, 1);
    ConvertOptions again = options();
    again.input = home_ / "out.safetensors";
    again.output = home_ / "again.safetensors";
    again.decode_to = DType::f32;
    expect_names(error_of([&] { Conversion(host, again).run(); }), {"plugin 'bad.format'", function, "out of luck", "'l.weight'"});
    ::unsetenv("QMILL_TEST_THROW");
    Conversion(host, options()).run();
  }
}

TEST_F(Guard, WhatAFormatSaysOfAWishIsNotPutInFrontOfIt) {
  const Host host({folder_with("throwing_format"), QMILL_TEST_PLUGINS});
  ConvertOptions legacy = options();
  legacy.target.storage.naming = Naming::legacy;
  const Error error = error_of([&] { Conversion(host, legacy).plan(); });
  EXPECT_EQ(error_kind_name(error.kind()), "usage");
  EXPECT_EQ(std::string(error.what()).find("plugin '"), std::string::npos) << error.what();
}

TEST_F(Guard, WhatIsConstantIsAskedForWhenItIsLoaded) {
  const fs::path folder = folder_with("throwing_format");
  for (const auto& [what, reason] : {std::pair{"info", "out of luck"}, {"grid", "out of luck"}, {"grid descends", "from -1 to 1"}}) {
    ::setenv("QMILL_TEST_THROW", what, 1);
    const Host host({folder, QMILL_TEST_PLUGINS});
    EXPECT_EQ(host.find_format("bad.format"), nullptr);
    const Error error = error_of([&] { host.format("bad.format"); });
    EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
    EXPECT_EQ(host.quantizer("rtn").info().name, "rtn");
  }
}

TEST_F(Guard, ATextIsOpenedByItsLoaderAndOnlyThenJudged) {
  const Host host({folder_with("throwing_loader"), QMILL_TEST_PLUGINS});
  const fs::path model = home_ / "model.bad";
  for (const char* text : {"{\"layers\": []}", "<?xml version='1.0'?><layers/>"}) {
    testing::write_bytes(model, text);
    ::unsetenv("QMILL_TEST_THROW");
    EXPECT_EQ(host.open(model)->tensors().size(), 2u) << text;
    ::setenv("QMILL_TEST_THROW", "input", 1);
    testing::expect_error(ErrorKind::input, {"model.bad", "not a model", text, "its third line is empty"}, [&] { host.open(model); });
  }
  testing::write_bytes(model, "<!doctype html><html></html>");
  testing::expect_error(ErrorKind::input, {"model.bad", "it is a web page"}, [&] { host.open(model); });
  testing::write_bytes(model, "anything");
  testing::expect_error(ErrorKind::input, {"plugin 'bad.loader', open", "its third line is empty"}, [&] { host.open(model); });
}

TEST_F(Guard, FunctionsOfASource) {
  const Host host({folder_with("throwing_loader"), QMILL_TEST_PLUGINS});
  ConvertOptions given = options();
  given.target.format = "int8";
  given.input = home_ / "model.bad";
  testing::write_bytes(given.input, "anything");
  Conversion(host, given).run();
  fs::remove(given.output);
  const std::unique_ptr<TensorSource> source = host.open(given.input);
  ::setenv("QMILL_TEST_THROW", "extent", 1);
  expect_names(error_of([&] { source->extent(0); }), {"plugin 'bad.loader', extent", "tensor 'l.weight'"});
  ::setenv("QMILL_TEST_THROW", "prefetch", 1);
  expect_names(error_of([&] { source->prefetch(0); }), {"plugin 'bad.loader', prefetch", "tensor 'l.weight'"});
  for (const char* function : {"probe", "open", "tensors", "metadata", "files", "read", "nothing"}) {
    ::setenv("QMILL_TEST_THROW", function, 1);
    const bool is_of_a_tensor = function == std::string("read");
    expect_names(error_of([&] { Conversion(host, given).run(); }), {"plugin 'bad.loader'", is_of_a_tensor ? "tensor 'l.weight'" : ""});
    EXPECT_FALSE(fs::exists(given.output)) << function;
  }
}

}  // namespace
}  // namespace qmill
