// What formats share about .comfy_quant markers and the regular-Hadamard basis that they name.
#pragma once

#include <qmill/error.h>
#include <qmill/stored_format.h>

#include <nlohmann/json.hpp>

namespace qmill {

// Discarded when it is no JSON.
nlohmann::json parse_marker(const std::string& text);

// Its 'format', or nothing when it is no object with such a text.
std::string marked_format(const nlohmann::json& marker);

// Throws Error(input) naming the layer when `key` is missing or no positive integer.
std::int64_t positive_integer(const nlohmann::json& marker, const char* key, std::string_view base);

// True for a JSON true only. Looks at the value in place: a copy of hostile nesting would recurse as deep.
bool says_true(const nlohmann::json& marker, const char* key);

// What says 'convrot': the marker, an object, or the object 'params' in it. Readers take both.
const nlohmann::json& rotation_fields(const nlohmann::json& marker);

// The tensor BASE.comfy_quant with this text.
StoredTensor marker_tensor(const std::string& name, const std::string& marker);

// A power of 4 from 4 to 65536.
bool is_rotation_group(std::int64_t group);

// The tensor BASE.SUFFIX of a layer, or null.
const TensorInfo* find_other(const StoredLayerInfo& layer, std::string_view suffix);

// The layer claims to be of `format`, and `tensor` (null: missing) is not `expected`.
Error contradiction(const FormatInfo& format, const StoredLayerInfo& layer, std::string_view name, const TensorInfo* tensor,
                    std::string_view expected);

}  // namespace qmill
