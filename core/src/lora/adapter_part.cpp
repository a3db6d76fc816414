#include "lora/adapter_part.h"

#include <array>
#include <utility>

namespace qmill {
namespace {

using Mark = std::pair<std::string_view, AdapterPart>;

// At the end of a name.
constexpr std::array<Mark, 31> kEndings = {{{".alpha", AdapterPart::alpha},
                                            {".dora_scale", AdapterPart::magnitude},
                                            {".hada_w1_a", AdapterPart::hada_w1_a},
                                            {".hada_w1_b", AdapterPart::hada_w1_b},
                                            {".hada_w2_a", AdapterPart::hada_w2_a},
                                            {".hada_w2_b", AdapterPart::hada_w2_b},
                                            {".hada_t1", AdapterPart::hada_t1},
                                            {".hada_t2", AdapterPart::hada_t2},
                                            {".lokr_w1", AdapterPart::lokr_w1},
                                            {".lokr_w1_a", AdapterPart::lokr_w1_a},
                                            {".lokr_w1_b", AdapterPart::lokr_w1_b},
                                            {".lokr_w2", AdapterPart::lokr_w2},
                                            {".lokr_w2_a", AdapterPart::lokr_w2_a},
                                            {".lokr_w2_b", AdapterPart::lokr_w2_b},
                                            {".lokr_t2", AdapterPart::lokr_t2},
                                            {".diff", AdapterPart::diff},
                                            {".diff_b", AdapterPart::diff_b},
                                            {".w_norm", AdapterPart::diff},  // LyCORIS: differences of norms
                                            {".b_norm", AdapterPart::diff_b},
                                            {".reshape_weight", AdapterPart::unsupported},
                                            {".set_weight", AdapterPart::unsupported},
                                            {".lokr_t1", AdapterPart::unsupported},
                                            {".lora_B.bias", AdapterPart::unsupported},
                                            {".lora_up.bias", AdapterPart::unsupported},
                                            {".lora_embedding_A", AdapterPart::unsupported},
                                            {".lora_embedding_B", AdapterPart::unsupported},
                                            {".oft_blocks", AdapterPart::unsupported},
                                            {".a1.weight", AdapterPart::unsupported},  // GLoRA
                                            {".a2.weight", AdapterPart::unsupported},
                                            {".b1.weight", AdapterPart::unsupported},
                                            {".b2.weight", AdapterPart::unsupported}}};

// Followed by ".weight", by the name of an adapter between dots, or by nothing.
constexpr std::array<Mark, 12> kMarks = {{{".lora_A", AdapterPart::down},
                                          {".lora_B", AdapterPart::up},
                                          {".lora_down", AdapterPart::down},
                                          {".lora_up", AdapterPart::up},
                                          {".lora.down", AdapterPart::down},
                                          {".lora.up", AdapterPart::up},
                                          {".lora_linear_layer.down", AdapterPart::down},
                                          {".lora_linear_layer.up", AdapterPart::up},
                                          {"_lora.down", AdapterPart::down},
                                          {"_lora.up", AdapterPart::up},
                                          {".lora_mid", AdapterPart::mid},
                                          {".lora_magnitude_vector", AdapterPart::magnitude}}};

}  // namespace

std::optional<AdapterName> parse_adapter_name(std::string_view name) {
  for (const auto& [ending, part] : kEndings)
    if (name.size() > ending.size() && name.ends_with(ending))
      return AdapterName{std::string(name.substr(0, name.size() - ending.size())), part};
  for (const auto& [mark, part] : kMarks) {
    const std::size_t at = name.rfind(mark);
    if (at == std::string_view::npos || at == 0) continue;
    std::string_view rest = name.substr(at + mark.size());
    if (rest.ends_with(".weight")) rest.remove_suffix(7);
    if (!rest.empty() && (rest.front() != '.' || rest.find('.', 1) != std::string_view::npos)) continue;
    return AdapterName{std::string(name.substr(0, at)), part};
  }
  return std::nullopt;
}

}  // namespace qmill
