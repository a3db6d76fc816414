// The layout hadamard_quip: what is stored, what it decodes to, and what is refused.
#include "hadamard_quip_format.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/TensorOperators.h>
#include <expect_error.h>
#include <gmock/gmock.h>
#include <model_file.h>
#include <qmill/numerics/random.h>

#include <cmath>

using namespace qmill;
using qmill::testing::expect_error;
using qmill::testing::random_weight;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

namespace {

const quip::HadamardQuipFormat& format() {
  static const quip::HadamardQuipFormat format;
  return format;
}

TensorInfo weight_info(std::int64_t rows, std::int64_t columns) { return {"l.weight", DType::bf16, {rows, columns}}; }

// Sylvester's matrix of order n over sqrt(n), by its recursion.
at::Tensor sylvester(std::int64_t n) {
  at::Tensor h = at::ones({1, 1}, at::kDouble);
  while (h.size(0) < n) h = at::cat({at::cat({h, h}, 1), at::cat({h, h.neg()}, 1)}, 0);
  return h.div(std::sqrt(static_cast<double>(n)));
}

struct Stored {
  quip::TransformedWeight transformed;
  Layout layout;
  std::vector<at::Tensor> tensors;
};

at::Tensor signs(std::uint64_t seed, std::int64_t n) {
  const std::vector<float> values = random_signs(seed, n);
  at::Tensor result = at::empty({n}, at::kFloat);
  std::copy(values.begin(), values.end(), result.mutable_data_ptr<float>());
  return result;
}

Stored stored(std::int64_t rows, std::int64_t columns) {
  Stored made;
  made.layout = format().layout(weight_info(rows, columns), {});
  const std::vector<TensorInfo> outputs = format().outputs(weight_info(rows, columns), made.layout);
  const std::int64_t m = outputs[0].shape[0], n = outputs[0].shape[1];
  made.transformed = {random_weight(m, n, at::kFloat, 1).mul(50).clamp(-127, 127).to(at::kChar),
                      random_weight(m, 1, at::kFloat, 2).abs().add(0.01), signs(3, m), signs(4, n)};
  for (StoredTensor& tensor : format().store(made.transformed, weight_info(rows, columns), made.layout)) {
    EXPECT_EQ(info_of(tensor), outputs[made.tensors.size()]);
    made.tensors.push_back(std::move(tensor.data));
  }
  EXPECT_EQ(made.tensors.size(), outputs.size());
  return made;
}

StoredLayerInfo layer_of(std::int64_t rows, std::int64_t columns) {
  const Layout layout = format().layout(weight_info(rows, columns), {});
  const std::vector<TensorInfo> outputs = format().outputs(weight_info(rows, columns), layout);
  return {"l", outputs[0], {outputs.begin() + 1, outputs.end()}, format().label(layout).marker};
}

TEST(HadamardQuipFormat, ItDecodesToTheProductOfItsMatricesCropped) {
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {5, 3}, {64, 128}, {33, 100}, {1, 129}, {70, 1}}) {
    const Stored made = stored(rows, columns);
    const auto& [codes, scales, sign_row, sign_col] = made.transformed;
    const at::Tensor scaled = codes.to(at::kDouble).mul(scales.to(at::kDouble));
    const at::Tensor expected = at::mm(at::mm(sylvester(codes.size(0)), scaled), sylvester(codes.size(1)))
                                    .mul(sign_row.to(at::kDouble).unsqueeze(1))
                                    .mul(sign_col.to(at::kDouble))
                                    .narrow(0, 0, rows)
                                    .narrow(1, 0, columns);
    const at::Tensor decoded = at::full({rows, columns}, 1e9, at::kFloat);
    format().decode_rows(made.tensors, made.layout, 0, rows, decoded.mutable_data_ptr<float>());
    EXPECT_LE(decoded.to(at::kDouble).sub(expected).abs().max().item<double>(), 1e-5 * expected.abs().max().item<double>() + 1e-30)
        << rows << " x " << columns;
  }
}

TEST(HadamardQuipFormat, SidesArePaddedToPowersOfTwoAndGrowthIsSaid) {
  const Layout layout = format().layout(weight_info(3072, 12288), {});
  EXPECT_EQ(layout.note, "padded to 4096 x 16384: 1.78 bytes per value");
  const std::vector<TensorInfo> outputs = format().outputs(weight_info(3072, 12288), layout);
  const std::string marker = R"({"format":"hadamard_quip","shape":[3072,12288]})";
  EXPECT_THAT(outputs, ElementsAre(TensorInfo{"l.weight", DType::i8, {4096, 16384}}, TensorInfo{"l.weight_scale", DType::f32, {4096, 1}},
                                   TensorInfo{"l.hadamard_quip", DType::i8, {}}, TensorInfo{"l.hadamard_size_out", DType::i32, {}},
                                   TensorInfo{"l.hadamard_size_in", DType::i32, {}}, TensorInfo{"l.sign_row", DType::f32, {4096}},
                                   TensorInfo{"l.sign_col", DType::f32, {16384}},
                                   TensorInfo{"l.comfy_quant", DType::u8, {static_cast<std::int64_t>(marker.size())}}));
  EXPECT_EQ(format().label(layout).marker, marker);
  EXPECT_EQ(format().layout(weight_info(64, 1024), {}).note, "");
  EXPECT_EQ(format().layout(weight_info(63, 1024), {}).note, "padded to 64 x 1024: 1.02 bytes per value");
}

TEST(HadamardQuipFormat, SizesAreStoredAsNumbers) {
  const Stored made = stored(33, 100);
  EXPECT_EQ(made.tensors[2].item<int>(), 1);
  EXPECT_EQ(made.tensors[3].item<int>(), 64);
  EXPECT_EQ(made.tensors[4].item<int>(), 128);
}

TEST(HadamardQuipFormat, WishesThatItCannotExpressAreRefused) {
  const auto refused = [](std::initializer_list<std::string_view> parts, auto change) {
    StorageOptions wanted;
    change(wanted);
    expect_error(ErrorKind::usage, parts, [&] { format().layout(weight_info(64, 64), wanted); });
  };
  refused({"one scale per row", "block scaling"}, [](StorageOptions& wanted) { wanted.scaling = Scaling::block; });
  refused({"legacy names"}, [](StorageOptions& wanted) { wanted.naming = Naming::legacy; });
  refused({"basis of its own", "rotation 'any'"}, [](StorageOptions& wanted) { wanted.rotation.mode = Rotation::Mode::any; });
  expect_error(ErrorKind::unsupported, {"'l.weight'", "2 x 3 x 4"}, [] { format().layout({"l.weight", DType::f32, {2, 3, 4}}, {}); });
  expect_error(ErrorKind::unsupported, {"'l.weight'", "0 x 4"}, [] { format().layout(weight_info(0, 4), {}); });
  expect_error(ErrorKind::unsupported, {"'l.weight'", "at most"}, [] { format().layout(weight_info(1, std::int64_t{1} << 31), {}); });
}

TEST(HadamardQuipFormat, ItRecognisesItsOwnFilesInTheirShape) {
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {33, 100}, {64, 128}}) {
    const StoredLayerInfo layer = layer_of(rows, columns);
    const std::optional<Layout> layout = format().recognise(layer);
    ASSERT_TRUE(layout);
    EXPECT_THAT(format().original(layer, *layout).shape, ElementsAre(rows, columns));
    EXPECT_EQ(format().label(*layout).marker, layer.marker);
    EXPECT_EQ(format().outputs({"l.weight", DType::f32, {rows, columns}}, *layout).front(), layer.weight);
  }
  StorageOptions wanted;
  wanted.full_precision_matrix_mult = true;
  StoredLayerInfo layer = layer_of(33, 100);
  layer.marker = format().label(format().layout(weight_info(33, 100), wanted)).marker;
  EXPECT_TRUE(format().recognise(layer)->data->text().ends_with("full precision"));
}

TEST(HadamardQuipFormat, OtherLayersAreNotItsBusiness) {
  StoredLayerInfo layer = layer_of(33, 100);
  for (const char* marker : {"", "{", "[]", "7", "{}", R"({"format":7})", R"({"format":"int8_tensorwise","shape":[33,100]})"}) {
    layer.marker = marker;
    EXPECT_FALSE(format().recognise(layer)) << marker;
  }
}

TEST(HadamardQuipFormat, MarkersThatLieAreRefused) {
  StoredLayerInfo layer = layer_of(33, 100);
  const std::string deep = R"({"format":"hadamard_quip","shape":)" + std::string(30000, '[') + std::string(30000, ']') + "}";
  for (const std::string shape : {"[33]", "[33,100,1]", "[33,-100]", "[0,100]", "[33.0,100]", "[\"33\",100]", "[18446744073709551615,100]",
                                  "[9223372036854775808,100]", "[33,1e400]", "null", "{}", "33", "[[33,100],[33,100]]"}) {
    layer.marker = R"({"format":"hadamard_quip","shape":)" + shape + "}";
    if (shape == "[33,1e400]")  // no JSON number
      EXPECT_FALSE(format().recognise(layer));
    else
      expect_error(ErrorKind::input, {"layer 'l'", "'shape'"}, [&] { format().recognise(layer); });
  }
  layer.marker = R"({"format":"hadamard_quip"})";
  expect_error(ErrorKind::input, {"layer 'l'", "'shape'"}, [&] { format().recognise(layer); });
  layer.marker = deep;
  expect_error(ErrorKind::input, {"layer 'l'", "'shape'"}, [&] { format().recognise(layer); });
  for (const char* shape : {"[32,100]", "[33,64]", "[1,1]", "[65,100]", "[1073741824,1073741824]"}) {
    layer.marker = std::string(R"({"format":"hadamard_quip","shape":)") + shape + "}";
    expect_error(ErrorKind::input, {"layer 'l'", "'l.weight' is I8 64 x 128, expected I8 "}, [&] { format().recognise(layer); });
  }
}

TEST(HadamardQuipFormat, TensorsThatAreMissingOrOfAnotherShapeAreRefused) {
  for (std::size_t i = 0; i + 1 < layer_of(33, 100).others.size(); ++i) {  // the last is the marker itself, which a header may replace
    StoredLayerInfo layer = layer_of(33, 100);
    const std::string name = layer.others[i].name;
    layer.others[i].shape.push_back(2);
    expect_error(ErrorKind::input, {"layer 'l'", name, "expected"}, [&] { format().recognise(layer); });
    layer.others[i].shape.pop_back();
    layer.others[i].dtype = DType::f64;
    expect_error(ErrorKind::input, {"layer 'l'", name, "F64"}, [&] { format().recognise(layer); });
    layer.others.erase(layer.others.begin() + static_cast<std::ptrdiff_t>(i));
    expect_error(ErrorKind::input, {"layer 'l'", name, "missing"}, [&] { format().recognise(layer); });
  }
  StoredLayerInfo layer = layer_of(33, 100);
  layer.weight.dtype = DType::u8;
  expect_error(ErrorKind::input, {"layer 'l'", "'l.weight' is U8"}, [&] { format().recognise(layer); });
  layer = layer_of(33, 100);
  layer.others.pop_back();
  EXPECT_TRUE(format().recognise(layer));
}

TEST(HadamardQuipFormat, NumbersThatContradictTheShapesAreRefused) {
  for (const auto& [place, name] :
       {std::pair<std::size_t, const char*>{2, "hadamard_quip"}, {3, "hadamard_size_out"}, {4, "hadamard_size_in"}}) {
    Stored made = stored(33, 100);
    made.tensors[place] = at::scalar_tensor(7, made.tensors[place].scalar_type());
    std::vector<float> out(33 * 100);
    expect_error(ErrorKind::input, {name, "is 7"}, [&] { format().decode_rows(made.tensors, made.layout, 0, 33, out.data()); });
  }
}

}  // namespace
