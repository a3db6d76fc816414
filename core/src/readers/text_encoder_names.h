// Text encoders whose tensors have names of another program, and the names that ComfyUI looks for.
// Sources: llama.cpp, gguf-py/gguf/tensor_mapping.py and convert_hf_to_gguf.py; Wan2.1, wan/modules/t5.py; transformers.
#pragma once

#include <qmill/loader.h>

#include <map>
#include <string>

namespace qmill {

// New names of a model's tensors.
struct Renaming {
  std::string dialect;                        // whose names they are: "llama.cpp (t5encoder)"; empty: names of nobody that is known
  std::map<std::string, std::string> names;   // by the old name; tensors that keep theirs are not in it
  std::map<std::string, std::int64_t> heads;  // by the old name: of projections whose rows llama.cpp interleaves within each head
};

// Whether the names are of one of these.
bool has_other_names(const std::vector<TensorInfo>& tensors);

// Reads names and metadata only. Throws Error(unsupported) for a model of llama.cpp whose values differ, too; Error(input) for metadata
// that is missing or no number, and when two tensors would get one name.
Renaming renaming_of(const TensorSource& source);

}  // namespace qmill
