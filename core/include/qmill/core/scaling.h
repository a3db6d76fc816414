// How a format, a scaling and a block size fit together, on the command line and in a layer configuration.
#pragma once

#include <qmill/core/convert_options.h>
#include <qmill/core/export.h>
#include <qmill/core/host.h>

#include <optional>
#include <string_view>

namespace qmill {

// That of a format where nothing is asked for.
QMILL_CORE_API Scaling default_scaling(const WritableFormat& format);

// `format_name` is how the format was called: a name may imply a scaling, and a block size alone means block. `otherwise` is what applies
// when nothing is said. Nothing: none is chosen. Throws Error(usage) when the wishes contradict each other.
QMILL_CORE_API std::optional<Scaling> agreed_scaling(const WritableFormat& format, std::string_view format_name,
                                                     std::optional<Scaling> scaling, std::optional<std::int64_t> block_size,
                                                     std::optional<Scaling> otherwise);

// Sets the scaling and the block size of options.storage from what was asked for. Quantizers that go through columns in blocks have an
// option block_size; with them `block_size` means that one, unless block scaling is asked for by name. Call it once format and quantizer of
// `options` are chosen. Throws Error(usage).
QMILL_CORE_API void choose_scaling(TargetOptions& options, const Host& host, std::optional<Scaling> scaling,
                                   std::optional<std::int64_t> block_size);

}  // namespace qmill
