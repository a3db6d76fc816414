// The files that a conversion reads.
#pragma once

#include <qmill/core/convert_options.h>
#include <qmill/loader.h>

namespace qmill {

// All of them: of the source, the index that names these, calibration data, LoRAs. An output may be none of them.
std::vector<std::filesystem::path> input_files(const TensorSource& source, const ConvertOptions& options);

// Their sizes in bytes, in that order; of what is no file, 0.
std::vector<std::uint64_t> sizes_of_inputs(const TensorSource& source, const ConvertOptions& options);

}  // namespace qmill
