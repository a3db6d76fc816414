// How an architecture is recognised by the names of its tensors. Filters have this data; the host compares it with a model.
#pragma once

#include <qmill/export.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

// What files put before a model's own names, such as "model.diffusion_model."; longer ones come first. [any-thread]
QMILL_API std::span<const std::string_view> name_prefixes();

// One dimension of one tensor: variants that differ in nothing but a width.
struct TensorDimension {
  std::string tensor;  // whole name
  std::size_t axis = 0;
  std::int64_t equals = 0;
};

// Names are the model's own, without a prefix. A key stands for the tensor of that name and for all tensors below it: "img_in" for
// img_in.weight and img_in.bias, not for img_in_patch.weight.
struct Fingerprint {
  std::string architecture;  // "flux1"
  // All fingerprints of all filters are tried by ascending order, and the first that fits decides. Readers of models test in an order, too,
  // so the place of a fingerprint is part of what it says. Equal orders: by search order of their plugins.
  int order = 0;
  std::vector<std::string> all;             // keys that the model has; never empty
  std::vector<std::string> none;            // keys that it has not
  std::vector<TensorDimension> dimensions;  // each holds; a tensor that is missing does not fit
  // Readers give the tensors of this layout other names, and make one of several, while they load it. They do so with weights and biases
  // only: what a format stores besides them loses its layer.
  bool renamed_by_readers = false;
};

}  // namespace qmill
