// The interfaces' destructors: each vtable and typeinfo exists once, here.
#include <qmill/format.h>
#include <qmill/layer_context.h>
#include <qmill/loader.h>
#include <qmill/model_filter.h>

#include <limits>

namespace qmill {

Format::~Format() = default;
LayerCalibration::~LayerCalibration() = default;
LayerContext::~LayerContext() = default;
ModelFilter::~ModelFilter() = default;
TensorSource::~TensorSource() = default;
Loader::~Loader() = default;

std::optional<Scaling> Format::implied_scaling(std::string_view) const { return std::nullopt; }
std::optional<Substitute> Format::substitute(const TensorInfo&, const StorageOptions&) const { return std::nullopt; }
std::int64_t LayerContext::step_limit(Step) const { return std::numeric_limits<std::int64_t>::max(); }
TensorInfo Format::original(const StoredLayerInfo& layer, const Layout&) const { return layer.weight; }
void TensorSource::prefetch(std::size_t) const {}

}  // namespace qmill
