// A ModelFilter that is data: patterns over the dot-separated segments of a tensor's name.
#pragma once

#include <qmill/model_filter.h>

namespace qmill {

// A pattern is a run of segments that must occur in the name, one after the other: "mlp.down_proj" is in
// "visual.blocks.0.mlp.down_proj.weight". Inside a segment '*' stands for any characters, none included; a segment "*" is
// any one segment. "shared" therefore does not hit "shared_experts". Case matters. A leading '^' ties the first segment to the start
// of the name, or to what follows a prefix of name_prefixes(): "^proj_out" is in "model.diffusion_model.proj_out.weight".
QMILL_API bool segments_match(std::string_view pattern, std::string_view name);

struct FilterData {
  FilterInfo info;
  std::vector<std::string> keep;
  std::vector<std::string> remove;
  std::vector<Fingerprint> fingerprints;
};

class QMILL_API PatternFilter final : public ModelFilter {
 public:
  explicit PatternFilter(FilterData data);
  ~PatternFilter() override;

  const FilterInfo& info() const override { return data_.info; }
  const FilterData& data() const { return data_; }
  FilterVerdict classify(const TensorInfo& tensor) const override;  // remove before keep
  std::span<const Fingerprint> fingerprints() const override { return data_.fingerprints; }

 private:
  FilterData data_;
};

}  // namespace qmill
