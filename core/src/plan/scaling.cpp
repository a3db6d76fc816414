#include <qmill/core/scaling.h>

#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

constexpr const char* kBlockSize = "block_size";

bool has_block_size(const Quantizer& quantizer) {
  const std::vector<OptionSpec>& options = quantizer.info().options;
  return std::any_of(options.begin(), options.end(), [](const OptionSpec& option) {
    return same_name(option.name, kBlockSize) && std::holds_alternative<std::int64_t>(option.initial);
  });
}

}  // namespace

Scaling agreed_scaling(const Format& format, std::string_view format_name, std::optional<Scaling> scaling,
                       std::optional<std::int64_t> block_size, Scaling otherwise) {
  if ((scaling || block_size) && format.grid() == nullptr)
    throw Error(ErrorKind::usage,
                fmt::format("format '{}' has no scales, so a scaling mode or block size says nothing about it", format_name));
  const std::optional<Scaling> implied = format.implied_scaling(format_name);
  const bool is_tensorwise = same_name(format_name, "int8_tensorwise");
  const auto fits = [&](Scaling wanted) {
    return is_tensorwise ? wanted == Scaling::row || wanted == Scaling::tensor : !implied || wanted == *implied;
  };
  if (scaling && !fits(*scaling))
    throw Error(ErrorKind::usage, fmt::format("format '{}' has {} scaling, the scaling mode is {}", format_name,
                                              is_tensorwise ? "row or tensor" : scaling_name(*implied), scaling_name(*scaling)));
  if (!scaling) scaling = implied;
  if (!scaling && block_size && !is_tensorwise) scaling = Scaling::block;
  if (!scaling) scaling = fits(otherwise) ? otherwise : Scaling::row;
  if (block_size && *scaling != Scaling::block)
    throw Error(ErrorKind::usage, fmt::format("a block size of {} needs block scaling; this is format '{}' with {} scaling", *block_size,
                                              format_name, scaling_name(*scaling)));
  return *scaling;
}

const Quantizer* choose_scaling(TargetOptions& options, const Host& host, std::optional<Scaling> scaling,
                                std::optional<std::int64_t> block_size) {
  const Format& format = host.format(options.format);
  const Quantizer* owner = nullptr;
  if (block_size && scaling != Scaling::block && format.implied_scaling(options.format) != Scaling::block) {
    const Quantizer* quantizer = host.find_quantizer(options.quantizer);
    if (quantizer != nullptr && has_block_size(*quantizer)) owner = quantizer;
  }
  if (owner != nullptr) {
    const std::string& name = owner->info().name;
    Options values(owner->info().options);
    values.set(name, kBlockSize, *block_size);
    options.quantizer_options[name][kBlockSize] = *block_size;
  }
  options.storage.scaling =
      agreed_scaling(format, options.format, scaling, owner == nullptr ? block_size : std::nullopt, options.storage.scaling);
  if (block_size) options.storage.block_size = *block_size;  // the quantizer's own options may ask for blocks, too
  return owner;
}

}  // namespace qmill
