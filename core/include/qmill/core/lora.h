// LoRA files that are merged into a model before it is quantized (docs/lora.md).
#pragma once

#include <qmill/core/export.h>

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace qmill {

// A LoRA to merge, and how strongly.
struct LoraToMerge {
  std::filesystem::path file;
  double strength = 1;
};

// "FILE" or "FILE:0.8"; a file that has the whole text as its name is meant first. Throws Error(usage) for an empty name.
QMILL_CORE_API LoraToMerge parse_lora_to_merge(const std::string& text);

// What one file changes. Layers are named as in the model, without ".weight"; tensors of the file as there.
struct MergedLora {
  std::filesystem::path file;
  double strength = 1;              // all in all: its own, times that of the run, times 0.9^i
  std::vector<std::string> layers;  // of the model, that it changes
  // Changes by kind: "lora", "dora", "loha", "lokr", "diff", "bias". A layer has several when the file has its parts apart.
  std::map<std::string, std::size_t> kinds;
  std::map<std::string, std::size_t> alpha;   // of these with a rank, where alpha comes from: "tensor", "metadata", "rank"
  std::vector<std::string> unmatched;         // its tensors that are of no layer of the model, or of no known kind
  std::vector<std::string> for_other_models;  // its tensors that are meant for another model, by their names or sizes
  // Layers of the model of which a change is left out, as it has another size: each once, by place in the model. One is in `layers`, too,
  // if other parts of it (to_q of a qkv) fit and are merged.
  std::vector<std::string> mismatched;
  std::size_t unaffected = 0;  // of `layers`, those that an alpha or strength of 0 leaves as they are
};

struct MergeAccount {
  double scale = 1;
  bool dampened = false;          // file number i has a factor of 0.9^i
  std::vector<MergedLora> files;  // in the order in which they are merged
};

// LoRAs to merge, in this order.
struct MergeOptions {
  std::vector<std::filesystem::path> paths = {};
  std::vector<double> strengths = {};  // by path; empty: 1 each
  double scale = 1;                    // of all of them
  bool dampen = true;                  // of several, number i is weakened by 0.9^i
  bool partial = false;                // a file may have changes of layers that the model does not have
  bool skip_mismatched = false;        // layers of other sizes are left out
};

}  // namespace qmill
