#include "report/rounded.h"

#include "host/guard.h"
#include "host/resource_context.h"

#include <qmill/numerics/rounding.h>

namespace qmill {

RowDecoder rounded_rows(const TensorInfo& info, const at::Tensor& weight, const CodedFormat& format, const Layout& layout,
                        const RunResources& resources) {
  const LayerTarget target{&format, layout, Options()};
  ResourceContext context(info, target, resources);
  std::vector<at::Tensor> stored;
  guard(format.info().name, "encode", info.name, [&] {
    for (StoredTensor& tensor : format.encode(round_to_nearest(weight, format.grid(), layout, context), info, layout))
      stored.push_back(std::move(tensor.data));
  });
  return stored_rows(std::move(stored), info, format, layout);
}

}  // namespace qmill
