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

Scaling default_scaling(const WritableFormat& format) {
  const std::vector<Scaling> scalings = format.scalings(format.info().name);
  return scalings.empty() ? Scaling::row : scalings.front();
}

std::optional<Scaling> agreed_scaling(const WritableFormat& format, std::string_view format_name, std::optional<Scaling> scaling,
                                      std::optional<std::int64_t> block_size, std::optional<Scaling> otherwise) {
  const std::vector<Scaling> allowed = format.scalings(format_name);
  if ((scaling || block_size) && allowed.empty())
    throw Error(ErrorKind::usage,
                fmt::format("format '{}' has no scales, so a scaling mode or block size has no meaning for it", format_name));
  // Under some of its names a format has fewer scalings; what it has under none of them, it says itself.
  const bool is_narrowed = allowed.size() < format.scalings(format.info().name).size();
  const auto fits = [&](Scaling wanted) { return !is_narrowed || std::find(allowed.begin(), allowed.end(), wanted) != allowed.end(); };
  if (scaling && !fits(*scaling)) {
    std::string names;
    for (const Scaling one : allowed) names += fmt::format("{}{}", names.empty() ? "" : " or ", scaling_name(one));
    throw Error(ErrorKind::usage,
                fmt::format("format '{}' has {} scaling, the scaling mode is {}", format_name, names, scaling_name(*scaling)));
  }
  if (!scaling && is_narrowed && allowed.size() == 1) scaling = allowed.front();
  if (!scaling && block_size && fits(Scaling::block)) scaling = Scaling::block;
  if (!scaling && otherwise && fits(*otherwise)) scaling = otherwise;
  if (!scaling && is_narrowed && allowed.front() != default_scaling(format)) scaling = allowed.front();
  if (const Scaling found = scaling.value_or(default_scaling(format)); block_size && found != Scaling::block)
    throw Error(ErrorKind::usage, fmt::format("a block size of {} needs block scaling; this is format '{}' with {} scaling", *block_size,
                                              format_name, scaling_name(found)));
  return scaling;
}

void choose_scaling(TargetOptions& options, const Host& host, std::optional<Scaling> scaling, std::optional<std::int64_t> block_size) {
  const WritableFormat& format = host.format(options.format);
  const Quantizer* owner = nullptr;
  if (block_size && scaling != Scaling::block && format.scalings(options.format) != std::vector{Scaling::block}) {
    const Quantizer* quantizer = host.find_quantizer(options.quantizer);
    if (quantizer != nullptr && has_block_size(*quantizer)) owner = quantizer;
  }
  if (owner != nullptr) {
    const std::string& name = owner->info().name;
    Options values(owner->info().options);
    values.set(name, kBlockSize, *block_size);
    options.quantizer_options[name][kBlockSize] = *block_size;
  }
  std::optional<Scaling>& chosen = options.storage.scaling;
  chosen = agreed_scaling(format, options.format, scaling, owner == nullptr ? block_size : std::nullopt, chosen);
  // Asking for what the format does anyhow leaves it to the quantizer's own options; a size of blocks is a choice of its own.
  if (chosen == default_scaling(format) && (owner != nullptr || !block_size)) chosen.reset();
  if (block_size) options.storage.block_size = *block_size;  // the quantizer's own options may ask for blocks, too
}

}  // namespace qmill
