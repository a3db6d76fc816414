// Tells one model from another without reading all of it.
#pragma once

#include <qmill/core/export.h>
#include <qmill/loader.h>

#include <string>

namespace qmill {

// {"tensors": "...", "samples": "..."}: 128 bits (MurmurHash3) of the names, types and shapes of all tensors, and of a few bytes of some of
// them. Order, metadata and shards do not matter. Throws what reading throws. [any-thread]
QMILL_CORE_API std::string model_identity(const TensorSource& source);

// What two identities say: nothing when they are of one model, else "its tensors have other names, types or shapes" or "its tensors hold
// other values". A text that is no identity is of another model.
QMILL_CORE_API std::string identity_difference(const std::string& recorded, const std::string& found);

}  // namespace qmill
