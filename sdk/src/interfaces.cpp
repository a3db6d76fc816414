// The interfaces' destructors: each vtable and typeinfo exists once, here. What functions do by default.
#include <qmill/error.h>
#include <qmill/layer_context.h>
#include <qmill/loader.h>
#include <qmill/model_filter.h>

#include <fmt/format.h>

#include <limits>

namespace qmill {

FormatData::~FormatData() = default;
StoredFormat::~StoredFormat() = default;
WritableFormat::~WritableFormat() = default;
CodedFormat::~CodedFormat() = default;
LayerCalibration::~LayerCalibration() = default;
LayerContext::~LayerContext() = default;
ModelFilter::~ModelFilter() = default;
TensorSource::~TensorSource() = default;
Loader::~Loader() = default;

TensorInfo StoredFormat::original(const StoredLayerInfo& layer, const Layout&) const { return layer.weight; }
std::vector<Scaling> WritableFormat::scalings(std::string_view) const { return {}; }
bool WritableFormat::can_rotate(Scaling) const { return false; }
std::string WritableFormat::misfit(const TensorInfo&, const StorageOptions&) const { return {}; }
std::int64_t LayerContext::step_limit(Step) const { return std::numeric_limits<std::int64_t>::max(); }
void TensorSource::prefetch(std::size_t) const {}

const WritableFormat* as_writable(const StoredFormat& format) { return dynamic_cast<const WritableFormat*>(&format); }
const CodedFormat* as_coded(const StoredFormat& format) { return dynamic_cast<const CodedFormat*>(&format); }

const CodedFormat& LayerTarget::coded() const {
  if (const CodedFormat* coded = format == nullptr ? nullptr : as_coded(*format)) return *coded;
  throw Error(ErrorKind::internal, fmt::format("format '{}' has no codes to choose", format == nullptr ? "" : format->info().name));
}

void detail::reject_foreign_layout() { throw Error(ErrorKind::internal, "a layout was made by another format than the one that it was given to"); }

}  // namespace qmill
