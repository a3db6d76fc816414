// Which rule decides about a tensor: the first that hits, in the order of docs/rules.md.
#pragma once

#include "io/regex.h"

#include <qmill/core/layer_selection.h>
#include <qmill/core/host.h>

#include <functional>
#include <map>
#include <set>

namespace qmill {

struct Verdict {
  Treatment treatment = Treatment::quantize;
  std::string rule;
  std::string reason;
  LayerChoice choice;      // for quantize
  bool heuristic = false;  // rule 5 has a say, too
};

class Rules {
 public:
  // Compiles the patterns. `filters` must outlive this. `takes_table`: whether LayerSelection::embeddings is about a tensor; asked once, of
  // tensors that no choice of a person is about. Throws Error(usage).
  Rules(const Host& host, const LayerSelection& selection, std::vector<const ModelFilter*> filters,
        std::function<bool(const TensorInfo&)> takes_table = {});

  Verdict decide(const TensorInfo& tensor);

  // A line for every pattern and filter that hit nothing in all calls of decide(), but for `automatic`: nobody asked for that one.
  std::vector<std::string> unused(const ModelFilter* automatic) const;

 private:
  bool hits(const std::optional<Regex>& regex, const char* option, const TensorInfo& tensor);

  const LayerSelection& selection_;
  std::optional<Regex> custom_;
  std::optional<Regex> exclude_;
  std::vector<const ModelFilter*> filters_;
  LayerChoice custom_choice_;
  std::optional<LayerChoice> fallback_choice_;
  std::optional<LayerChoice> table_choice_;
  std::function<bool(const TensorInfo&)> takes_table_;
  std::set<std::string> used_;  // descriptions of what has hit
};

}  // namespace qmill
