#include "plugins/pytorch/checkpoint.h"

#include <qmill/error.h>

#include <cstdlib>

// The input is a data.pkl whose storages all have 4096 bytes.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr pytorch::ZipEntry entry = {1 << 20, 4096};
  try {
    const pytorch::Pickle pickle = pytorch::read_pickle({reinterpret_cast<const char*>(data), size});
    for (const pytorch::StoredView& view :
         pytorch::named_tensors(pickle, 2 << 20, [&](const std::string&) { return std::optional(entry); })) {
      if (view.offset < entry.offset || view.span_bytes > entry.bytes || view.offset - entry.offset > entry.bytes - view.span_bytes)
        std::abort();
      if (view.is_contiguous && static_cast<std::uint64_t>(view.info.bytes()) != view.span_bytes) std::abort();
    }
  } catch (const qmill::Error&) {
  }
  return 0;
}
