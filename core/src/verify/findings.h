// What verification collects.
#pragma once

#include <qmill/core/verify.h>

namespace qmill {

class Findings {
 public:
  // Mainline ComfyUI does not load it, or computes something else; no more do others.
  void error(std::string rule, std::string tensor, std::string text) {
    add({std::move(rule), std::move(tensor), std::move(text), Effect::stops, Effect::stops});
  }
  // Worth knowing; loads.
  void remark(std::string rule, std::string tensor, std::string text, Effect sdcpp = Effect::none, Effect comfyui = Effect::none) {
    add({std::move(rule), std::move(tensor), std::move(text), comfyui, sdcpp});
  }

  std::vector<Finding> take() { return std::move(findings_); }

 private:
  void add(Finding finding) { findings_.push_back(std::move(finding)); }

  std::vector<Finding> findings_;
};

}  // namespace qmill
