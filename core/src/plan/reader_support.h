// Which layers of a plan the program that the output is for can load quantized.
#pragma once

#include "readers/model_parts.h"

#include <qmill/core/architecture.h>
#include <qmill/core/plan.h>

namespace qmill {

class ReaderSupport {
 public:
  ReaderSupport(const TensorSource& source, const std::optional<Architecture>& architecture, TargetReader reader);

  // Why a layer that would be quantized stays as it is; empty: it need not. Notes both.
  std::string keeps(const Decision& decision);

  // Whether it is a table of tokens that is loaded quantized. Notes the tables that are not.
  bool takes_table(const TensorInfo& tensor);

  // One line about the tables that takes_table() has noted; empty: there are none.
  std::string tables_left() const;

  // One line for each part of the model that is kept, or quantized though it is not loaded so.
  std::vector<std::string> warnings() const;

  // Of layers that are quantized: why ComfyUI does not load one of them, and why that is not known of one. Empty: nothing is so.
  const std::string& not_loaded() const { return not_loaded_; }
  const std::string& not_judged() const { return not_judged_; }

 private:
  const TargetReader reader_;
  const bool is_renamed_;  // refused as a whole, by require_stable_names
  const ModelParts parts_;
  std::map<std::string, std::size_t> unread_;  // layers by what they are, and why ComfyUI does not read them
  std::map<std::string, std::size_t> tables_left_;  // by what they are
  std::string not_loaded_, not_judged_;
};

}  // namespace qmill
