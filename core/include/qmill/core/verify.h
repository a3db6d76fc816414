// Checks a file against the rules of the programs that load quantized models.
#pragma once

#include <qmill/core/export.h>
#include <qmill/core/host.h>

#include <atomic>

namespace qmill {

// What a finding means for one reader.
enum class Effect { none, doubt, stops };

struct Finding {
  std::string rule;    // "scale-shape": names do not change
  std::string tensor;  // or layer; empty: of the whole file
  std::string text;    // what was found, what was expected
  Effect comfyui = Effect::none;
  Effect sdcpp = Effect::none;

  // Mainline ComfyUI is what files of this kind are for: what stops it is an error, the rest are remarks.
  bool is_error() const { return comfyui == Effect::stops; }
};

struct ReaderVerdict {
  std::string reader;         // "ComfyUI", "stable-diffusion.cpp"
  std::optional<bool> loads;  // nothing: not known
  std::string since;          // first release that reads all its formats; empty: any, or none
  std::string because;        // why not, or why that is not known
};

struct VerifyReport {
  std::vector<Finding> findings;       // errors first
  std::vector<ReaderVerdict> readers;  // ComfyUI first
  std::size_t tensors = 0;
  std::size_t layers = 0;  // with a marker
  QMILL_CORE_API bool loads() const;  // in mainline ComfyUI
};

struct VerifyOptions {
  bool read_data = true;  // scales and codes, too; else headers and markers
};

// `host` is asked which architecture it is: what a reader makes of a quantized layer depends on the model and on the part of it. The rules
// are those of safetensors files: throws Error(unsupported) that names a file which is none, and what reading throws.
QMILL_CORE_API VerifyReport verify_model(const Host& host, const TensorSource& source, const VerifyOptions& options = {},
                                         const std::atomic<bool>* cancel = nullptr);

}  // namespace qmill
