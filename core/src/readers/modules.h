// What kind of module of a reader a weight is of: by its name, as a file does not say.
#pragma once

#include <string_view>

namespace qmill {

enum class ModuleKind {
  linear,     // unless it is known to be another one
  embedding,  // a table of tokens or positions: ComfyUI reads float8 and int8 for these (ops.py)
  parameter,  // a matrix without a module that could read a marker
};

// `base`: the name of the weight without ".weight".
ModuleKind module_kind(std::string_view base);

// Of embeddings: whether it has a row for each token of a vocabulary. The others are small.
bool is_token_table(std::string_view base);

}  // namespace qmill
