#include "core/src/host/filter_pack.h"

#include <qmill/error.h>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  qmill::offered_filters(text);
  try {
    for (const qmill::FilterData& filter : qmill::parse_filter_pack(text).filters)
      qmill::PatternFilter(filter).classify({"model.blocks.17.attn.qkv.weight", qmill::DType::bf16, {8, 8}});
  } catch (const qmill::Error&) {
  }
  return 0;
}
