// The files that a conversion reads.
#pragma once

#include <qmill/core/plan.h>
#include <qmill/loader.h>

namespace qmill {

// All of them: of the source, the index that names these, calibration data, LoRAs. An output may be none of them.
std::vector<std::filesystem::path> input_files(const TensorSource& source, const ConvertOptions& options);

// If `input` is a folder: its files that look like those of the source and are none of them.
std::vector<std::filesystem::path> files_beside(const TensorSource& source, const std::filesystem::path& input);

// What tells them from others without reading their values: sizes, the header of the source, and how its layers are stored if it is decoded.
std::string identity_of_inputs(const TensorSource& source, const ConvertOptions& options);

// As they are now; each once.
std::vector<PlannedInput> planned_inputs(const TensorSource& source, const ConvertOptions& options);

// Throws Error(input) that names a file which is not the one any more that was planned with: what was read of it may be of two versions.
void require_unchanged(const std::vector<PlannedInput>& inputs);

}  // namespace qmill
