#include "writing_rules.h"

#include <qmill/error.h>

#include <fmt/format.h>

namespace qmill {

bool is_matrix(const TensorInfo& weight) { return weight.shape.size() == 2 && weight.elements() != 0; }

void require_matrix(const FormatInfo& format, const TensorInfo& weight) {
  if (weight.shape.size() != 2)
    throw Error(ErrorKind::unsupported,
                fmt::format("{} stores matrices; '{}' has {} dimensions", format.name, weight.name, weight.shape.size()));
  if (weight.elements() == 0)
    throw Error(ErrorKind::unsupported,
                fmt::format("{} stores matrices with values; '{}' is {}", format.name, weight.name, weight.shape_text()));
}

void require_comfy_names(const FormatInfo& format, const StorageOptions& wanted) {
  if (wanted.naming != Naming::comfy)
    throw Error(ErrorKind::usage, fmt::format("{} has ComfyUI names only; found legacy names", format.name),
                "use `comfy_quant on`, or `format int8`");
}

void require_wishes(const FormatInfo& format, const StorageOptions& wanted, Scaling scaling) {
  if (const Scaling found = wanted.scaling.value_or(scaling); found != scaling)
    throw Error(ErrorKind::usage, fmt::format("{} has {} scaling; found {} scaling", format.name, scaling_name(scaling), scaling_name(found)),
                fmt::format("use `scaling_mode {}`, or `format int8`", scaling_name(scaling)));
  require_comfy_names(format, wanted);
}

void require_no_rotation(const FormatInfo& format, const StorageOptions& wanted) {
  if (wanted.rotation.must_rotate())
    throw Error(ErrorKind::usage, fmt::format("{} is not rotated; found rotation '{}'", format.name, rotation_text(wanted.rotation)),
                "leave out what asks for a rotation, or use a format that is rotated: int8, int4, asym_w4a8_int8");
}

}  // namespace qmill
