// The header metadata of the output.
#pragma once

#include <qmill/core/plan.h>

namespace qmill {

// All of the source's but what it said of an earlier quantization, what this run did (qmill.*), and the markers again
// where ComfyUI looks for them (_quantization_metadata).
std::map<std::string, std::string> output_metadata(const TensorSource& source, const ConvertOptions& options, const Plan& plan);

// Of a model that was decoded: all of the source's, and who decoded what into which type.
std::map<std::string, std::string> dequantized_metadata(const TensorSource& source, const std::filesystem::path& input, DType dtype);

}  // namespace qmill
