// The quantizer quip: what it stores for each of its options, and what it makes of the run's wishes.
#include "hadamard_quip_format.h"

#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <calibration_stub.h>
#include <expect_error.h>
#include <formats.h>
#include <gmock/gmock.h>
#include <model_file.h>
#include <qmill/numerics/calibrated_rounding.h>
#include <qmill/numerics/rounding.h>
#include <qmill/plugin.h>
#include <test_context.h>

#include <cmath>
#include <functional>
#include <limits>

extern "C" const qmill::PluginDescriptor qmill_plugin;

using namespace qmill;
using qmill::testing::CalibrationStub;
using qmill::testing::correlated_rows;
using qmill::testing::expect_error;
using qmill::testing::random_weight;
using qmill::testing::TestContext;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

namespace {

using Choices = std::map<std::string, OptionValue>;

const Quantizer& quantizer() {
  static const std::unique_ptr<Quantizer> quantizer(static_cast<Quantizer*>(qmill_plugin.offers[0].create()));
  return *quantizer;
}

const WritableFormat& full_format() {
  static const std::unique_ptr<StoredFormat> format(static_cast<StoredFormat*>(qmill_plugin.offers[1].create()));
  return dynamic_cast<const WritableFormat&>(*format);
}

const CodedFormat& int8() { return qmill::testing::coded_format("int8"); }
const CodedFormat& int4() { return qmill::testing::coded_format("int4"); }

Options options_with(const Choices& choices) {
  Options options(quantizer().info().options);
  for (const auto& [name, value] : choices) options.set("quip", name, value);
  return options;
}

// A TestContext that knows the largest allocation.
class Context final : public TestContext {
 public:
  Context(const at::Tensor& weight, const WritableFormat& format, const StorageOptions& storage, const Choices& choices,
          const LayerCalibration* calibration = nullptr, const std::string& name = "l.weight", std::uint64_t seed = 1)
      : Context({name, dtype_of(weight), weight.sizes().vec()}, format, storage, choices) {
    seed_ = seed;
    calibrated = calibration;
  }

  std::uint64_t seed() const override { return seed_; }
  at::Tensor allocate(std::span<const std::int64_t> shape, DType dtype) override {
    at::Tensor tensor = TestContext::allocate(shape, dtype);
    largest = std::max(largest, static_cast<std::int64_t>(tensor.nbytes()));
    return tensor;
  }

  std::int64_t largest = 0;

 private:
  Context(const TensorInfo& info, const WritableFormat& format, const StorageOptions& storage, const Choices& choices)
      : TestContext(info, {&format, format.layout(info, storage), options_with(choices)}) {}

  std::uint64_t seed_ = 1;
};

StorageOptions unrotated() {
  StorageOptions storage;
  storage.rotation.mode = Rotation::Mode::off;
  return storage;
}

StorageOptions scaled(Scaling scaling) {
  StorageOptions storage = unrotated();
  storage.scaling = scaling;
  storage.block_size = 96;  // does not divide the rows that are rounded together
  return storage;
}

bool same_tensors(const StoredLayer& a, const StoredLayer& b) {
  if (a.tensors.size() != b.tensors.size()) return false;
  for (std::size_t i = 0; i < a.tensors.size(); ++i)
    if (!a.tensors[i].data.equal(b.tensors[i].data)) return false;
  return true;
}

// What rounding under the inputs' Hessian stores in the basis of the layout.
StoredLayer calibrated(const at::Tensor& weight, Context& context, bool activation_order) {
  const Layout& layout = context.target().layout;
  const CodedFormat& format = context.target().coded();
  CalibratedRounding how;
  how.activation_order = activation_order;
  const CodedWeight coded = round_calibrated(to_stored_basis(weight, layout, context), format.grid(), layout,
                                             inputs_in_stored_basis(layout, context).get(), how, context);
  return {format.encode(coded, context.weight(), layout), coded.statistics};
}

at::Tensor decoded(const StoredLayer& stored, const Context& context) {
  std::vector<at::Tensor> tensors;
  for (const StoredTensor& tensor : stored.tensors) tensors.push_back(tensor.data);
  const at::Tensor values = at::zeros(context.weight().shape, at::kFloat);
  context.target().format->decode_rows(tensors, context.target().layout, 0, values.size(0), values.mutable_data_ptr<float>());
  return values;
}

double output_error(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& other) {
  const at::Tensor x = rows.to(at::kDouble);
  const at::Tensor difference = weight.to(at::kDouble).sub(other.to(at::kDouble));
  return at::mm(x, difference.t()).norm().item<double>() / at::mm(x, weight.to(at::kDouble).t()).norm().item<double>();
}

TEST(QuipPlugin, ItOffersAQuantizerOfEveryGridAndALayoutOfItsOwn) {
  ASSERT_EQ(qmill_plugin.offer_count, 2u);
  EXPECT_STREQ(qmill_plugin.offers[0].name, quantizer().info().name.c_str());
  EXPECT_STREQ(qmill_plugin.offers[1].name, full_format().info().name.c_str());
  EXPECT_TRUE(quantizer().info().formats.empty());
  EXPECT_THAT(quantizer().info().own_formats, ElementsAre(full_format().info().name));
}

TEST(QuipPlugin, StoredAsItIsTheCodesAreThoseOfRoundingUnderTheHessian) {
  const at::Tensor weight = random_weight(96, 256, at::kBFloat16, 1);
  const CalibrationStub inputs(correlated_rows(600, 256, 2));
  for (const bool actorder : {true, false})
    for (const bool hadamard : {true, false})
      for (const StorageOptions& storage : {StorageOptions(), unrotated(), scaled(Scaling::tensor)}) {
        Context context(weight, int8(), storage, {{"actorder", actorder}, {"hadamard", hadamard}}, &inputs);
        const StoredLayer stored = quantizer().quantize(weight, context);
        EXPECT_THAT(context.notes, ElementsAre(HasSubstr("changes nothing that is stored")));
        Context plain(weight, int8(), storage, {}, &inputs);
        EXPECT_TRUE(same_tensors(stored, calibrated(weight, plain, actorder))) << actorder << hadamard << scaling_name(*storage.scaling);
      }
}

TEST(QuipPlugin, InTheConvrotLayoutTheErrorIsThatOfRoundingInThatBasis) {
  const at::Tensor weight = random_weight(96, 320, at::kFloat, 3);
  const CalibrationStub inputs(correlated_rows(800, 320, 4));
  StorageOptions storage;
  storage.rotation.mode = Rotation::Mode::any;
  for (const CodedFormat* format : {&int8(), &int4()}) {
    Context context(weight, *format, storage, {{"store_transformed", true}, {"actorder", false}}, &inputs);
    ASSERT_EQ(context.target().layout.rotation_group, 64);
    const StoredLayer stored = quantizer().quantize(weight, context);
    EXPECT_THAT(context.notes, Not(Contains(HasSubstr("changes nothing"))));
    Context plain(weight, *format, storage, {}, &inputs);
    const StoredLayer expected = calibrated(weight, plain, false);
    EXPECT_TRUE(same_tensors(stored, expected));
    EXPECT_EQ(stored.statistics.at("output_error"), expected.statistics.at("output_error"));
    EXPECT_LT(stored.statistics.at("output_error"), stored.statistics.at("output_error_rtn"));
  }
}

TEST(QuipPlugin, TheFullLayoutIsWhatThePlanSaysAndWhatItsReaderDecodes) {
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {7, 5}, {33, 100}, {64, 128}, {129, 65}}) {
    const at::Tensor weight = random_weight(rows, columns, at::kHalf, 5);
    Context context(weight, full_format(), {}, {});
    const StoredLayer stored = quantizer().quantize(weight, context);
    std::vector<TensorInfo> infos;
    for (const StoredTensor& tensor : stored.tensors) infos.push_back(info_of(tensor));
    EXPECT_EQ(infos, quantizer().plan(context.weight(), context.target()));
    const at::Tensor w = weight.to(at::kDouble);
    const double error = w.sub(decoded(stored, context).to(at::kDouble)).norm().item<double>() / w.norm().item<double>();
    EXPECT_LT(error, 0.015) << rows << " x " << columns;  // a step of the grid is at most max / 127
  }
}

TEST(QuipPlugin, TheObjectiveInTheFullBasisIsThatOfTheDecodedWeight) {
  const at::Tensor weight = random_weight(64, 128, at::kFloat, 6);
  const CalibrationStub inputs(correlated_rows(500, 128, 7));
  Context context(weight, full_format(), {}, {}, &inputs);
  const StoredLayer stored = quantizer().quantize(weight, context);
  const at::Tensor error = weight.sub(decoded(stored, context)).to(at::kDouble);
  const double objective = at::mm(error, inputs.given_hessian.to(at::kDouble)).mul(error).sum().item<double>() / 64;
  EXPECT_NEAR(stored.statistics.at("objective") / objective, 1, 1e-3);
  EXPECT_LT(stored.statistics.at("objective"), 0.8 * stored.statistics.at("objective_rtn"));
  EXPECT_NEAR(stored.statistics.at("output_error") / output_error(inputs.held_out, weight, decoded(stored, context)), 1, 1e-3);
}

TEST(QuipPlugin, PaddedWeightsGainAsWell) {
  at::Tensor weight = random_weight(70, 90, at::kFloat, 8);
  weight.mutable_data_ptr<float>()[90 * 11 + 7] = 60;  // an outlier, which the transform spreads
  const CalibrationStub inputs(correlated_rows(500, 90, 9));
  Context full(weight, full_format(), {}, {}, &inputs);
  const double error = output_error(inputs.held_out, weight, decoded(quantizer().quantize(weight, full), full));
  Context plain(weight, int8(), scaled(Scaling::tensor), {}, &inputs);
  const CodedWeight rounded = round_to_nearest(weight, int8().grid(), plain.target().layout, plain);
  const double plain_error =
      output_error(inputs.held_out, weight, decoded({int8().encode(rounded, plain.weight(), plain.target().layout), {}}, plain));
  EXPECT_LT(error, 0.2 * plain_error);
}

TEST(QuipPlugin, WithoutInputsTheFullLayoutIsRoundedToNearestAndSaysSo) {
  const at::Tensor weight = random_weight(33, 100, at::kFloat, 10);
  Context context(weight, full_format(), {}, {});
  quantizer().quantize(weight, context);
  EXPECT_THAT(context.notes, ElementsAre(HasSubstr("no calibration data")));
}

TEST(QuipPlugin, SignsBelongToTheSeedAndTheTensorsName) {
  const at::Tensor weight = random_weight(60, 120, at::kFloat, 11);
  const auto quantize = [&](const std::string& name, std::uint64_t run_seed, std::int64_t seed) {
    Context context(weight, full_format(), {}, {{"seed", seed}}, nullptr, name, run_seed);
    return quantizer().quantize(weight, context);
  };
  const StoredLayer first = quantize("a.weight", 1, -1);
  EXPECT_TRUE(same_tensors(first, quantize("a.weight", 1, -1)));
  const auto expect_other_signs = [](const StoredLayer& one, const StoredLayer& other) {
    for (const std::size_t place : {5, 6})
      EXPECT_FALSE(one.tensors[place].data.equal(other.tensors[place].data)) << one.tensors[place].name;
  };
  expect_other_signs(first, quantize("a.weight", 2, -1));  // the run's seed, which the host mixes with the name
  const StoredLayer given = quantize("a.weight", 1, 5);
  EXPECT_TRUE(same_tensors(given, quantize("a.weight", 2, 5)));
  expect_other_signs(given, quantize("b.weight", 1, 5));
  expect_other_signs(given, quantize("a.weight", 1, 6));
  EXPECT_FALSE(first.tensors[5].data.narrow(0, 0, 60).equal(first.tensors[6].data.narrow(0, 0, 60)));
  for (const std::size_t place : {5, 6}) EXPECT_EQ(first.tensors[place].data.abs().sum().item<double>(), first.tensors[place].data.numel());
}

TEST(QuipPlugin, CheckpointedCodesAreTheSameInLessMemory) {
  const at::Tensor weight = random_weight(1536, 64, at::kBFloat16, 12);
  const CalibrationStub inputs(correlated_rows(300, 64, 13));
  struct Case {
    const char* name;
    const WritableFormat& format;
    StorageOptions storage;
    const char* search;
    bool is_smaller = true;
  };
  StorageOptions rotated;
  rotated.rotation.mode = Rotation::Mode::any;
  StorageOptions blocks = scaled(Scaling::block);
  blocks.block_size = 32;
  for (const Case& test : {Case{"row", int8(), unrotated(), "off"},
                           {"rotated", int8(), rotated, "auto"},
                           {"searched", int8(), unrotated(), "mse"},
                           {"tensor", int8(), scaled(Scaling::tensor), "off"},
                           {"searched tensor", int8(), scaled(Scaling::tensor), "mse", false},
                           {"blocks", int8(), blocks, "mse"},
                           {"int4", int4(), rotated, "auto"}})
    for (const CalibrationStub* known : {&inputs, static_cast<const CalibrationStub*>(nullptr)}) {
      SCOPED_TRACE(std::string(test.name) + (known == nullptr ? " without inputs" : ""));
      const std::string search = test.search;
      Context whole(weight, test.format, test.storage, {{"scale_search", search}}, known);
      Context parts(weight, test.format, test.storage,
                    {{"scale_search", search},
                     {"checkpointed", true},
                     {"checkpoint_threshold", std::int64_t{64}},
                     {"checkpoint_segments", std::int64_t{3}}},
                    known);
      const StoredLayer expected = quantizer().quantize(weight, whole);
      const StoredLayer found = quantizer().quantize(weight, parts);
      EXPECT_TRUE(same_tensors(found, expected));
      std::map<std::string, double> statistics = expected.statistics;
      if (known != nullptr && test.is_smaller) statistics["pieces"] = 3;
      EXPECT_EQ(found.statistics, statistics);
      EXPECT_EQ(whole.notes, parts.notes);
      if (test.is_smaller)
        EXPECT_LT(parts.largest, whole.largest / 2);
      else
        EXPECT_EQ(parts.largest, whole.largest);
    }
}

TEST(QuipPlugin, NarrowLayersAreNotCheckpointed) {
  const at::Tensor weight = random_weight(1536, 64, at::kBFloat16, 12);
  Context whole(weight, int8(), unrotated(), {});
  Context narrow(weight, int8(), unrotated(), {{"checkpointed", true}, {"checkpoint_threshold", std::int64_t{65}}});
  quantizer().quantize(weight, whole);
  quantizer().quantize(weight, narrow);
  EXPECT_EQ(narrow.largest, whole.largest);
}

TEST(QuipPlugin, TheFullLayoutIsNotCheckpointedAndSaysSo) {
  const at::Tensor weight = random_weight(16, 64, at::kFloat, 14);
  Context context(weight, full_format(), {}, {{"checkpointed", true}, {"checkpoint_threshold", std::int64_t{64}}});
  quantizer().quantize(weight, context);
  EXPECT_THAT(context.notes, Contains(HasSubstr("`quip_checkpointed` does not apply")));
}

TEST(QuipPlugin, ValuesThatAreNotFiniteAreNamedInEveryMode) {
  at::Tensor weight = random_weight(600, 64, at::kFloat, 15);
  weight.mutable_data_ptr<float>()[590 * 64 + 3] = std::numeric_limits<float>::quiet_NaN();
  weight.mutable_data_ptr<float>()[20 * 64 + 4] = std::numeric_limits<float>::infinity();
  for (const WritableFormat* format : {static_cast<const WritableFormat*>(&int8()), &full_format()})
    for (const bool checkpointed : {false, true}) {
      Context context(weight, *format, unrotated(), {{"checkpointed", checkpointed}, {"checkpoint_threshold", std::int64_t{64}}});
      expect_error(ErrorKind::numeric, {"2 of 38400 values are not finite (first: infinity at row 20, column 4)"},
                   [&] { quantizer().quantize(weight, context); });
    }
}

TEST(QuipPlugin, TransformsBeyondTheRangeOfF32AreRefused) {
  at::Tensor weight = at::zeros({64, 64}, at::kFloat).add(3e38);
  Context context(weight, full_format(), {}, {});
  expect_error(ErrorKind::numeric, {"beyond the range of F32"}, [&] { quantizer().quantize(weight, context); });
}

TEST(QuipPlugin, BlockSizesChangeNothingThatIsStored) {
  const at::Tensor weight = random_weight(64, 256, at::kFloat, 16);
  const CalibrationStub inputs(correlated_rows(500, 256, 17));
  Context usual(weight, int8(), unrotated(), {}, &inputs);
  Context narrow(weight, int8(), unrotated(), {{"block_size", std::int64_t{17}}}, &inputs);
  const at::Tensor difference =
      quantizer().quantize(weight, usual).tensors[0].data.ne(quantizer().quantize(weight, narrow).tensors[0].data);
  EXPECT_LE(difference.sum().item<std::int64_t>(), 2);  // ties within rounding error
}

StorageWish adapted(
    const Choices& choices, const std::function<void(StorageWish&)>& change = [](StorageWish&) {}) {
  StorageWish wish;
  wish.format = "int8";
  change(wish);
  quantizer().adapt(wish, options_with(choices));
  return wish;
}

TEST(QuipPluginAdapt, ScalingsThatNobodyChoseAreThoseOfRequantisation) {
  EXPECT_EQ(adapted({}).storage.scaling, std::nullopt);
  EXPECT_EQ(adapted({{"requant_tensor_per_row", false}}).storage.scaling, Scaling::tensor);
  EXPECT_EQ(adapted({{"requant_scheme", std::string("block")}}).storage.scaling, Scaling::block);
  EXPECT_EQ(adapted({{"requant_scheme", std::string("block")}, {"requant_tensor_per_row", false}}).storage.scaling, Scaling::block);
  EXPECT_EQ(adapted({{"requant_scheme", std::string("block")}},
                    [](StorageWish& wish) { wish.storage.scaling = Scaling::axis; })
                .storage.scaling,
            Scaling::axis);
  EXPECT_EQ(rotation_text(adapted({}).storage.rotation), "auto");
}

TEST(QuipPluginAdapt, StoreTransformedRotatesWhatNobodyChose) {
  const StorageWish wish = adapted({{"store_transformed", true}});
  EXPECT_EQ(rotation_text(wish.storage.rotation), "any");
  EXPECT_EQ(wish.format, "int8");
  const StorageWish chosen = adapted({{"store_transformed", true}}, [](StorageWish& other) {
    other.storage.rotation = {Rotation::Mode::fixed, 16};
  });
  EXPECT_EQ(rotation_text(chosen.storage.rotation), "16");
}

TEST(QuipPluginAdapt, TheFullLayoutIsAFormatOfItsOwn) {
  EXPECT_EQ(adapted({{"store_transformed", true}, {"transformed_layout", std::string("full")}}).format, "hadamard_quip");
  EXPECT_EQ(adapted({{"transformed_layout", std::string("full")}}).format, "int8");  // what is not stored transformed has no such layout
  const StorageWish chosen = adapted({}, [](StorageWish& wish) {
    wish.format = "hadamard_quip";
    wish.format_is_chosen = true;
  });
  EXPECT_EQ(chosen.format, "hadamard_quip");
}

TEST(QuipPluginAdapt, ContradictionsNameBothSides) {
  const Choices transformed = {{"store_transformed", true}};
  const Choices full = {{"store_transformed", true}, {"transformed_layout", std::string("full")}};
  const auto with = [](Choices choices, const char* name, OptionValue value) {
    choices[name] = std::move(value);
    return choices;
  };
  for (const Choices& choices : {transformed, full}) {
    expect_error(ErrorKind::usage, {"'store_transformed'", "'hadamard' off"}, [&] { adapted(with(choices, "hadamard", false)); });
    expect_error(ErrorKind::usage, {"'store_transformed'", "tensor scaling"}, [&] {
      adapted(choices, [](StorageWish& wish) { wish.storage.scaling = Scaling::tensor; });
    });
    expect_error(ErrorKind::usage, {"'store_transformed'", "legacy names"},
                 [&] { adapted(choices, [](StorageWish& wish) { wish.storage.naming = Naming::legacy; }); });
    expect_error(ErrorKind::usage, {"'store_transformed'", "'requant_scheme' block"},
                 [&] { adapted(with(choices, "requant_scheme", std::string("block"))); });
    expect_error(ErrorKind::usage, {"'store_transformed'", "'requant_tensor_per_row' off"},
                 [&] { adapted(with(choices, "requant_tensor_per_row", false)); });
  }
  const auto rotation = [](Rotation::Mode mode) {
    return [mode](StorageWish& wish) {
      wish.storage.rotation.mode = mode;
    };
  };
  expect_error(ErrorKind::usage, {"'store_transformed'", "rotation 'off'"}, [&] { adapted(transformed, rotation(Rotation::Mode::off)); });
  for (const Rotation::Mode mode : {Rotation::Mode::off, Rotation::Mode::any})
    expect_error(ErrorKind::usage, {"'transformed_layout' full", "rotation"}, [&] { adapted(full, rotation(mode)); });
  expect_error(ErrorKind::usage, {"'transformed_layout' full", "format 'int4'"}, [&] {
    adapted(full, [](StorageWish& wish) {
      wish.format = "int4";
      wish.format_is_chosen = true;
    });
  });
  expect_error(ErrorKind::usage, {"'requant_scheme' block", "rotation 'any'"}, [&] {
    adapted({{"requant_scheme", std::string("block")}}, rotation(Rotation::Mode::any));
  });
  expect_error(ErrorKind::usage, {"format 'hadamard_quip'", "'hadamard' off"}, [&] {
    adapted({{"hadamard", false}}, [](StorageWish& wish) { wish.format = "hadamard_quip"; });
  });
}

}  // namespace
