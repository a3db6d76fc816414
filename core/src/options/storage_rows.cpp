#include "options/rows.h"

#include <qmill/core/scaling.h>
#include <qmill/error.h>
#include <qmill/names.h>
#include <qmill/round_to_nearest.h>

#include <fmt/format.h>

namespace qmill {

void add_storage_rows(Rows& rows) {
  RowGroup format(rows, "Format");
  OptionRow& name = format.value("format", "NAME", std::string("int8"), "int8, int4, fp8, mxfp8, nvfp4, w4a8 or fp16, or one of qmill plugins list",
                                 [](ConvertOptions& options, const OptionValues& values) { options.target.format = values.text("format"); });
  name.is_common = true;
  format.toggle("int8", false, "short for `format int8`").stands_for = "format=int8";
  OptionRow& fp16 = format.toggle("fp16", false, "short for `format fp16`");
  fp16.stands_for = "format=fp16";
  fp16.is_common = true;
  OptionRow& scaling =
      format.value("scaling_mode", "MODE", std::string("row"), "int8: one scale per row, tensor, block or axis; ComfyUI reads row, tensor");
  scaling.spec.choices = {"row", "tensor", "block", "axis"};
  scaling.is_common = true;
  OptionRow& block = format.value(
      "block_size", "N", std::int64_t{128},
      "int8: edge of a block; w4a8: columns of a group. Without `scaling_mode`, it means block scaling, or the option block_size of an "
      "optimizer that has one");
  block.spec.at_least = 1;
  block.spec.at_most = kLargestInteger;
  format
      .value("convrot", "auto|any|off|G", std::string("auto"),
             "store in the regular-Hadamard basis: auto = groups of 256 where 256 divides the columns, any = the largest of "
             "256, 64, 16 that does, G = a power of 4",
             [](ConvertOptions& options, const OptionValues& values) {
               options.target.storage.rotation = parse_rotation(values.text("convrot"));
             })
      .is_common = true;

  RowGroup quantizer(rows, "Quantizer");
  OptionRow& optimizer =
      quantizer.value("optimizer", "NAME", std::string("auto"), "the quantization algorithm: auto, or one of qmill plugins list",
                      [](ConvertOptions& options, const OptionValues& values) { options.target.quantizer = values.text("optimizer"); });
  optimizer.is_common = true;
  const std::string rounding = "optimizer=" + plain_rounding().info().name;
  quantizer.toggle("simple", false, "plain rounding, even if the inputs are known").stands_for = rounding;
  quantizer.toggle("no_learned_rounding", false, "another name of `simple`").stands_for = rounding;
  OptionRow& seed = quantizer.value("manual_seed", "N", std::int64_t{0},
                                    "seed of all random numbers; -1: a new seed, printed and stored",
                                    [](ConvertOptions& options, const OptionValues& values) { options.seed = values.integer("manual_seed"); });
  seed.spec.at_least = -1;
  seed.spec.at_most = kLargestInteger;
}

void settle_storage(ConvertOptions& options, const OptionValues& values, const Host& host) {
  const WritableFormat& format = host.format(options.target.format);
  if (values.given("convrot") && values.text("convrot") != "off" && as_coded(format) == nullptr)
    throw Error(ErrorKind::usage,
                fmt::format("`convrot` needs a format with codes, but format '{}' has none", options.target.format));
  std::optional<Scaling> scaling;
  if (values.given("scaling_mode")) scaling = parse_scaling(values.text("scaling_mode"));
  choose_scaling(options.target, host, scaling, values.maybe_integer("block_size"));
}

}  // namespace qmill
