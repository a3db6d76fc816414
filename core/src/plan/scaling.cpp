#include <qmill/core/scaling.h>

#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>

namespace qmill {

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

}  // namespace qmill
