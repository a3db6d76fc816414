#include "core/src/host/filter_pack.h"
#include "core/src/lora/layer_map.h"

#include <qmill/error.h>

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  qmill::offered_filters(text);
  try {
    const qmill::FilterPack pack = qmill::parse_filter_pack(text);
    for (const qmill::FilterData& filter : pack.filters)
      qmill::PatternFilter(filter).classify({"model.blocks.17.attn.qkv.weight", qmill::DType::bf16, {8, 8}});
    std::vector<const qmill::BlockNames*> names;
    for (const qmill::LoraNames& each : pack.lora_names)
      for (const qmill::BlockNames& blocks : each.names) names.push_back(&blocks);
    for (const char* layer : {"blocks.17.attn.qkv", "d.0.mod", "img_in", ""})
      for (const qmill::OtherName& other : qmill::other_names(names, layer, 24, 8))
        if (other.name.empty() ||
            (other.rows && (other.rows->first < 0 || other.rows->count < 1 || other.rows->first + other.rows->count > 24)))
          std::abort();
  } catch (const qmill::Error&) {
  }
  return 0;
}
