// What a dry run and a run say of a plan alike, as JSON: docs/json.md.
#pragma once

#include <qmill/core/plan.h>

#include <nlohmann/json_fwd.hpp>

namespace qmill {

// The files that the output consists of.
nlohmann::ordered_json output_files_json(const Plan& plan);

// Adds what both have to an object.
void add_run(nlohmann::ordered_json& json, const Plan& plan);

}  // namespace qmill
