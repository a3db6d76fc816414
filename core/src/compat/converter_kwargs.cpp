#include "compat/converter_kwargs.h"

#include "plan/automatic.h"

#include <qmill/core/scaling.h>
#include <qmill/error.h>
#include <qmill/names.h>
#include <qmill/round_to_nearest.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

class Kwargs {
 public:
  Kwargs(const std::map<std::string, OptionValue>& values, const Host& host, ConvertOptions& options)
      : values_(values), host_(host), options_(options) {}

  void read() {
    if (const OptionValue* name = find("optimizer")) {
      const std::string optimizer = text("optimizer", *name);
      const std::string& plain = plain_rounding().info().name;
      const auto is_plain = [&](const std::string& wanted) {
        const Quantizer* found = host_.find_quantizer(wanted);
        return found != nullptr && same_name(found->info().name, plain);
      };
      if (same_name(options_.target.quantizer, plain) && !is_plain(optimizer))
        throw Error(ErrorKind::usage, fmt::format("no_learned_rounding is optimizer {}, but optimizer is '{}'", plain, optimizer), "choose one");
      options_.target.quantizer = optimizer;
    }
    if (const OptionValue* name = find("format")) options_.target.format = text("format", *name);
    if (const OptionValue* rotation = find("convrot"))
      options_.target.storage.rotation =
          parse_rotation(std::holds_alternative<std::int64_t>(*rotation) ? option_text(*rotation) : text("convrot", *rotation));
    if (const OptionValue* device = find("device")) options_.run.device = text("device", *device);
    if (const OptionValue* threads = find("threads")) options_.run.threads = static_cast<int>(integer("threads", *threads, 0, 1024));
    if (const OptionValue* correction = find("bias_correction")) {
      if (!std::holds_alternative<bool>(*correction)) refuse("bias_correction", *correction, "true or false");
      options_.calibration.bias_correction = std::get<bool>(*correction);
    }
    read_scaling();
    for (const auto& [name, value] : values_)
      if (std::none_of(std::begin(kOwn), std::end(kOwn), [&, &kwarg = name](const char* own) { return same_name(own, kwarg); }))
        read_option(name, value);
  }

 private:
  static constexpr const char* kOwn[] = {"optimizer", "format", "scaling_mode", "block_size",
                                         "convrot",   "device", "threads",      "bias_correction"};

  const OptionValue* find(std::string_view name) const {
    const auto found = std::find_if(values_.begin(), values_.end(), [&](const auto& entry) { return same_name(entry.first, name); });
    return found == values_.end() ? nullptr : &found->second;
  }

  [[noreturn]] static void refuse(std::string_view name, const OptionValue& value, std::string_view allowed) {
    throw Error(ErrorKind::usage, fmt::format("converter argument '{}' is {}; allowed: {}", name, option_text(value), allowed));
  }

  static std::string text(std::string_view name, const OptionValue& value) {
    if (!std::holds_alternative<std::string>(value)) refuse(name, value, "a text");
    return std::get<std::string>(value);
  }

  static std::int64_t integer(std::string_view name, const OptionValue& value, std::int64_t at_least, std::int64_t at_most) {
    const auto* number = std::get_if<std::int64_t>(&value);
    if (number == nullptr || *number < at_least || *number > at_most)
      refuse(name, value, fmt::format("an integer from {} to {}", at_least, at_most));
    return *number;
  }

  void read_scaling() {
    std::optional<Scaling> scaling;
    std::optional<std::int64_t> block_size;
    if (const OptionValue* mode = find("scaling_mode")) {
      scaling = parse_scaling(text("scaling_mode", *mode));
      if (!scaling) refuse("scaling_mode", *mode, "row, tensor, block, axis");
    }
    if (const OptionValue* size = find("block_size")) block_size = integer("block_size", *size, 1, std::int64_t{1} << 62);
    choose_scaling(options_.target, host_, scaling, block_size);
  }

  // An option of the quantizer of the run; of others where something else chooses quantizers, too.
  void read_option(const std::string& name, const OptionValue& value) {
    const bool is_auto = same_name(options_.target.quantizer, "auto");
    const bool others_may_run = options_.layers.config || !options_.layers.custom.type.empty() || !options_.layers.fallback.type.empty();
    std::vector<std::string> known(std::begin(kOwn), std::end(kOwn));
    std::string owners;
    bool is_set = false;
    const std::vector<const Quantizer*> calibrated = calibrated_quantizers(host_);
    for (const Quantizer* quantizer : host_.quantizers()) {
      const QuantizerInfo& info = quantizer->info();
      for (const OptionSpec& option : info.options) {
        known.push_back(option.name);
        if (!same_name(option.name, name)) continue;
        owners += fmt::format("{}'{}'", owners.empty() ? "" : ", ", info.name);
        const bool runs =
            is_auto ? info.rounds_to_nearest || (!calibrated.empty() && quantizer == calibrated.front()) : quantizer == host_.find_quantizer(options_.target.quantizer);
        if (!runs && !others_may_run) continue;
        Options checked(info.options);
        checked.set(info.name, option.name, value);
        options_.target.quantizer_options[info.name][option.name] = checked.value(option.name);
        is_set = true;
      }
    }
    if (is_set) return;
    std::sort(known.begin(), known.end());
    known.erase(std::unique(known.begin(), known.end()), known.end());
    if (owners.empty()) throw Error(ErrorKind::usage, unknown_name_message("converter argument", name, known));
    throw Error(ErrorKind::usage,
                fmt::format("converter argument '{}' is an option of {}, but optimizer is '{}'", name, owners, options_.target.quantizer),
                "name that one with the converter argument 'optimizer', or leave this one out");
  }

  const std::map<std::string, OptionValue>& values_;
  const Host& host_;
  ConvertOptions& options_;
};

}  // namespace

void read_converter_kwargs(const std::map<std::string, OptionValue>& kwargs, const Host& host, ConvertOptions& options) {
  Kwargs(kwargs, host, options).read();
}

}  // namespace qmill
