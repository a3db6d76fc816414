// What formats share about the wishes and shapes that they can write.
#pragma once

#include <qmill/stored_format.h>

namespace qmill {

// A matrix with values. Throws Error(unsupported).
void require_matrix(const FormatInfo& format, const TensorInfo& weight);

// Whether it is one: what is none, no substitute could store either.
bool is_matrix(const TensorInfo& weight);

// Of a format that knows ComfyUI's names only. Throws Error(usage).
void require_comfy_names(const FormatInfo& format, const StorageOptions& wanted);

// The same, and its one scaling. Throws Error(usage).
void require_wishes(const FormatInfo& format, const StorageOptions& wanted, Scaling scaling);

// Of a format that is never rotated. Throws Error(usage).
void require_no_rotation(const FormatInfo& format, const StorageOptions& wanted);

}  // namespace qmill
