// A layer of a finished conversion as JSON: docs/json.md.
#pragma once

#include <qmill/core/convert.h>

#include <nlohmann/json_fwd.hpp>

namespace qmill {

nlohmann::ordered_json layer_report(const LayerReport& layer);

}  // namespace qmill
