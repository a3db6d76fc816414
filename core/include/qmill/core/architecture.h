// Recognises which model a file holds, by the names of its tensors.
#pragma once

#include <qmill/core/export.h>
#include <qmill/core/host.h>

#include <optional>
#include <string>

namespace qmill {

struct Architecture {
  std::string name;                     // "flux1": of the fingerprint that fits
  const ModelFilter* filter = nullptr;  // whose fingerprint it is; lives as long as the host
  std::string prefix;                   // of the model's own names in the file, such as "model.diffusion_model."; may be empty
  bool renamed_by_readers = false;      // see Fingerprint
};

// The first fingerprint that fits, of all filters that the host can load; nothing: none does. Reads names and shapes only, of each tensor a
// few times. Throws Error(plugin) from filters that are code. [any-thread]
QMILL_CORE_API std::optional<Architecture> recognise(const Host& host, const TensorSource& source);

}  // namespace qmill
