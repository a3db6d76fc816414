#include "quip_quantizer.h"

#include "hadamard_quip_format.h"

#include <qmill/error.h>
#include <qmill/names.h>
#include <qmill/numerics/hadamard.h>
#include <qmill/numerics/random.h>
#include <qmill/numerics/rounding.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>

namespace quip {
namespace {

using qmill::Error;
using qmill::ErrorKind;
using qmill::LayerContext;
using qmill::Options;

constexpr std::int64_t kValuesPerTask = 1 << 17;
constexpr std::int64_t kStrip = 32;  // columns: whole cache lines of each row

qmill::CalibratedRounding how_to_round(const Options& options) {
  qmill::CalibratedRounding how = qmill::read_calibrated_options(options);
  how.activation_order = options.boolean("actorder");
  how.block_columns = options.integer("block_size");
  return how;
}

bool is_checkpointed(std::int64_t columns, const Options& options) {
  return options.boolean("checkpointed") && columns >= options.integer("checkpoint_threshold");
}

[[noreturn]] void contradict(const std::string& option, const std::string& other, const std::string& advice) {
  throw Error(ErrorKind::usage, fmt::format("{} contradicts {}", option, other), advice);
}

// x -> H diag(signs) x.
class SignedSylvester {
 public:
  SignedSylvester(std::uint64_t seed, const char* purpose, std::int64_t n)
      : signs_(qmill::random_signs(qmill::seed_for(seed, purpose), n)) {}

  void operator()(float* values) const {
    for (std::size_t i = 0; i < signs_.size(); ++i) values[i] *= signs_[i];
    qmill::sylvester_transform(values, size());
  }
  std::int64_t size() const { return static_cast<std::int64_t>(signs_.size()); }
  at::Tensor signs() const { return at::tensor(signs_); }

 private:
  std::vector<float> signs_;
};

std::int64_t pieces(std::int64_t n, std::int64_t size) { return (n + size - 1) / size; }

// F32 [rows.size(), columns.size()]: H_M diag(sign_row) W diag(sign_col) H_N, W padded with zeros.
at::Tensor transformed(const at::Tensor& weight, const SignedSylvester& rows, const SignedSylvester& columns, LayerContext& context) {
  const std::int64_t n = weight.size(0), k = weight.size(1);
  const std::int64_t height = rows.size(), width = columns.size();
  const qmill::DType dtype = qmill::dtype_of(weight);
  const auto* source = static_cast<const std::byte*>(weight.const_data_ptr());
  at::Tensor result = context.allocate(std::array{height, width}, qmill::DType::f32);
  auto* values = result.mutable_data_ptr<float>();

  const std::int64_t rows_per_task = std::max<std::int64_t>(1, kValuesPerTask / width);
  std::atomic<bool> is_finite = true;
  context.parallel(pieces(height, rows_per_task), [&](std::int64_t task) {
    context.check_cancelled();
    for (std::int64_t row = task * rows_per_task; row < std::min(height, (task + 1) * rows_per_task); ++row) {
      float* out = values + row * width;
      std::fill_n(out, width, 0.0f);
      if (row >= n) continue;
      qmill::load_f32(source + row * k * (dtype_bits(dtype) / 8), dtype, k, out);
      if (!std::isfinite(qmill::largest_magnitude(out, k))) is_finite = false;
      columns(out);
    }
  });
  if (!is_finite) qmill::to_stored_basis(weight, {}, context);  // says how many values, and where

  context.parallel(pieces(width, kStrip), [&](std::int64_t strip) {
    context.check_cancelled();
    const std::int64_t first = strip * kStrip, last = std::min(width, first + kStrip);
    thread_local std::vector<float> scratch;
    scratch.resize(static_cast<std::size_t>(kStrip * height));
    for (std::int64_t row = 0; row < height; ++row)
      for (std::int64_t c = first; c < last; ++c) scratch[static_cast<std::size_t>((c - first) * height + row)] = values[row * width + c];
    for (std::int64_t c = first; c < last; ++c) {
      rows(scratch.data() + (c - first) * height);
      if (!std::isfinite(qmill::largest_magnitude(scratch.data() + (c - first) * height, height))) is_finite = false;
    }
    for (std::int64_t row = 0; row < height; ++row)
      for (std::int64_t c = first; c < last; ++c) values[row * width + c] = scratch[static_cast<std::size_t>((c - first) * height + row)];
  });
  if (!is_finite)
    throw Error(ErrorKind::numeric, "values are so large that their transform is beyond the range of F32",
                "store this layer in another layout, or keep it with `exclude_layers`");
  return result;
}

qmill::QuantizerInfo make_info() {
  qmill::QuantizerInfo info;
  info.name = "quip";
  info.summary = "rounds with error feedback for real inputs; on request stored in a random or regular Hadamard basis";
  qmill::OptionSpec layout{
      "transformed_layout", std::string("convrot"),
      "layout for store_transformed: regular Hadamard, or the whole matrix in a random Hadamard basis (hadamard_quip)"};
  layout.choices = {"convrot", "full"};
  qmill::OptionSpec scheme{"requant_scheme", std::string("tensor"),
                           "scales in the original basis if no scaling is chosen: block, or see requant_tensor_per_row"};
  scheme.choices = {"tensor", "block"};
  info.options = {
      {"actorder", true, "process the columns with the largest inputs first"},
      {"hadamard", true, "use random Hadamard transforms; off: dense ones, which cannot be stored"},
      {"seed", std::int64_t{-1}, "seed of the random signs; -1: the seed of the run", -1},
      {"store_transformed", false, "store the codes in the transformed basis"},
      layout,
      scheme,
      {"requant_tensor_per_row", true, "with requant_scheme tensor: one scale per row; off: one for the tensor"},
      {"checkpointed", false, "round wide layers in parts: the same codes, less memory"},
      {"checkpoint_threshold", std::int64_t{8192}, "columns from which a layer is wide", 1},
      {"checkpoint_segments", std::int64_t{4}, "number of parts of a wide layer", 1},
      {"block_size", qmill::kBlockColumns, "columns in a block; changes only the speed", 1},
  };
  for (qmill::OptionSpec& option : qmill::calibrated_options()) info.options.push_back(std::move(option));
  info.uses_calibration = true;
  info.cost = 25;
  info.own_formats = {kHadamardQuip};
  return info;
}

void note_idle_options(const Options& options, LayerContext& context) {
  const std::map<std::string, qmill::OptionValue> changed = options.changed();
  const bool is_full = context.target().format->info().name == kHadamardQuip;
  if (changed.contains("transformed_layout") && !options.boolean("store_transformed") && !is_full)
    context.note("`quip_transformed_layout` changes nothing without `quip_store_transformed`");
  if (changed.contains("checkpoint_segments") && !options.boolean("checkpointed"))
    context.note("`quip_checkpoint_segments` changes nothing without `quip_checkpointed`");
}

}  // namespace

const qmill::QuantizerInfo& QuipQuantizer::info() const {
  static const qmill::QuantizerInfo info = make_info();
  return info;
}

void QuipQuantizer::adapt(qmill::StorageWish& wish, const Options& options) const {
  qmill::StorageOptions& storage = wish.storage;
  const bool is_full_format = qmill::same_name(wish.format, kHadamardQuip);
  const bool in_blocks = options.text("requant_scheme") == "block";
  const bool per_row = !in_blocks && options.boolean("requant_tensor_per_row");
  if (!options.boolean("store_transformed") && !is_full_format) {
    if (storage.scaling || per_row) return;
    if (storage.rotation.must_rotate())
      contradict(in_blocks ? "quip option 'requant_scheme' block" : "quip option 'requant_tensor_per_row' off",
                 fmt::format("rotation '{}', which needs one scale per row", rotation_text(storage.rotation)), "leave out one of them");
    storage.scaling = in_blocks ? qmill::Scaling::block : qmill::Scaling::tensor;
    return;
  }

  const std::string what = is_full_format ? fmt::format("format '{}'", kHadamardQuip) : "quip option 'store_transformed'";
  const char* advice = "leave out one of them";
  if (!options.boolean("hadamard"))
    contradict(what, "quip option 'hadamard' off: a dense random basis is not stored, so nothing could decode it", advice);
  if (const qmill::Scaling scaling = storage.scaling.value_or(qmill::Scaling::row); scaling != qmill::Scaling::row)
    contradict(what, fmt::format("{} scaling: it has one scale per row", scaling_name(scaling)), advice);
  if (storage.naming == qmill::Naming::legacy) contradict(what, "legacy names, which cannot say how to decode it", advice);
  if (!is_full_format && !per_row)
    contradict(what, in_blocks ? "quip option 'requant_scheme' block" : "quip option 'requant_tensor_per_row' off", advice);
  if (is_full_format || options.text("transformed_layout") == "full") {
    const std::string full = is_full_format ? what : "quip option 'transformed_layout' full";
    if (storage.rotation.is_chosen())
      contradict(full, fmt::format("rotation '{}': it has a basis of its own", rotation_text(storage.rotation)), advice);
    if (wish.format_is_chosen && !is_full_format)
      contradict(full, fmt::format("format '{}': it is {}", wish.format, kHadamardQuip), advice);
    wish.format = kHadamardQuip;
    storage.rotation = {};
    return;
  }
  if (!storage.rotation.is_chosen()) storage.rotation = {qmill::Rotation::Mode::any};
  if (storage.rotation.mode == qmill::Rotation::Mode::off) contradict(what, "rotation 'off'", advice);
}

qmill::StoredLayer QuipQuantizer::quantize(const at::Tensor& weight, LayerContext& context) const {
  const auto& [format, layout, options] = context.target();
  note_idle_options(options, context);
  if (format->info().name != kHadamardQuip) return GridQuantizer::quantize(weight, context);

  if (is_checkpointed(weight.size(1), options))
    context.note("`quip_checkpointed` does not apply: this layout mixes the rows of the whole weight");
  const HadamardQuipFormat full;
  const std::vector<qmill::TensorInfo> outputs = full.outputs(context.weight(), layout);
  const std::int64_t given = options.integer("seed");
  const std::uint64_t seed = given < 0 ? context.seed() : qmill::seed_for(static_cast<std::uint64_t>(given), context.weight().name);
  const SignedSylvester rows(seed, "rows", outputs[0].shape[0]);
  const SignedSylvester columns(seed, "columns", outputs[0].shape[1]);
  const std::shared_ptr<const qmill::LayerInputs> inputs = qmill::inputs_in_basis(
      fmt::format("{} {}", kHadamardQuip, seed), [&](float* values) { columns(values); }, context, columns.size());
  qmill::Layout padded;
  padded.tile_columns = columns.size();
  const qmill::CodedWeight coded = qmill::round_calibrated(transformed(weight, rows, columns, context), qmill::Grid(), padded, inputs.get(),
                                                           how_to_round(options), context);
  return {full.store({coded.codes, coded.scales, rows.signs(), columns.signs()}, context.weight(), layout), coded.statistics};
}

qmill::CodedWeight QuipQuantizer::choose_codes(at::Tensor weight, const qmill::Grid& grid, const qmill::Layout& layout,
                                               LayerContext& context) const {
  return qmill::round_calibrated(weight, grid, layout, qmill::inputs_in_stored_basis(layout, context).get(),
                                 how_to_round(context.target().options), context);
}

qmill::CodedWeight QuipQuantizer::code_weight(const at::Tensor& weight, LayerContext& context) const {
  const auto& [format, layout, options] = context.target();
  if (!options.boolean("store_transformed"))
    context.note("quip's random transform changes nothing that is stored, unless `quip_store_transformed` is on");
  std::int64_t part_rows = qmill::rows_at_once(weight, layout, context);
  if (is_checkpointed(weight.size(1), options))
    part_rows = std::min(part_rows, pieces(weight.size(0), options.integer("checkpoint_segments")));
  else if (part_rows == weight.size(0))
    return GridQuantizer::code_weight(weight, context);
  return qmill::round_calibrated_in_parts(weight, part_rows, how_to_round(options), context);
}

}  // namespace quip
