// Qualities of layers as JSON: docs/json.md.
#pragma once

#include <qmill/core/quality.h>

#include <nlohmann/json_fwd.hpp>

namespace qmill {

nlohmann::ordered_json layer_json(const LayerQuality& layer);

// Adds the means of all layers to an object.
void add_means(nlohmann::ordered_json& json, const std::vector<LayerQuality>& layers);

}  // namespace qmill
