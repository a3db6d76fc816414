// Which part of which layer's change a tensor of a LoRA file is, by its name.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace qmill {

enum class AdapterPart {
  alpha,
  down,       // A [rank, ...]
  up,         // B [..., rank]
  mid,        // core of a convolution in CP form, between the two
  magnitude,  // DoRA: norms of the changed weight
  hada_w1_a,  // LoHa: (w1_a w1_b) * (w2_a w2_b), element by element
  hada_w1_b,
  hada_w2_a,
  hada_w2_b,
  hada_t1,
  hada_t2,
  lokr_w1,  // LoKr: the Kronecker product of w1 and w2, each whole or as a product
  lokr_w1_a,
  lokr_w1_b,
  lokr_w2,
  lokr_w2_a,
  lokr_w2_b,
  lokr_t2,
  diff,         // added to the weight
  diff_b,       // added to the bias
  unsupported,  // of an adapter that nothing here merges
};

struct AdapterName {
  std::string layer;
  AdapterPart part;
};

// "a.q.lora_A.default.weight" -> a.q, down. Nothing: the name is of no known kind.
std::optional<AdapterName> parse_adapter_name(std::string_view name);

}  // namespace qmill
