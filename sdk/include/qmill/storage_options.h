// What a user may ask for about the storage of a layer. Formats make a layout of it: see layout.h.
#pragma once

#include <qmill/export.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qmill {

// Which values share a scale.
enum class Scaling { row, tensor, block, axis };
enum class Naming {
  comfy,   // .weight_scale and a .comfy_quant marker
  legacy,  // .scale_weight, no marker
};

QMILL_API std::string_view scaling_name(Scaling scaling);
QMILL_API std::optional<Scaling> parse_scaling(std::string_view name);

struct Rotation {
  enum class Mode {
    automatic,  // nothing is chosen: what the format does by itself
    any,        // the largest of 256, 64, 16 that divides K
    off,
    fixed,  // groups of `group`, a power of 4, where it divides K
  };
  Mode mode = Mode::automatic;
  std::int64_t group = 256;

  bool is_chosen() const { return mode != Mode::automatic; }
  bool must_rotate() const { return mode == Mode::any || mode == Mode::fixed; }
};

QMILL_API std::string rotation_text(const Rotation& rotation);
// "auto", "any", "off" or a power of 4 up to 65536. Throws Error(usage).
QMILL_API Rotation parse_rotation(std::string_view text);

// What is absent or automatic is left to the format. One weight may get less than what is asked for: Layout::note says so.
struct StorageOptions {
  std::optional<Scaling> scaling = {};
  std::optional<std::int64_t> block_size = {};  // edge of the square tile of block scaling
  Rotation rotation;
  Naming naming = Naming::comfy;
  bool full_precision_matrix_mult = false;  // a key of the marker
  bool legacy_input_scale = false;          // legacy names: adds .scale_input
  float input_scale = 1;                    // its value
  bool vector_scale = false;                // legacy names: a single scale is [1] instead of a scalar
};

}  // namespace qmill
