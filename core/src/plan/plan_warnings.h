// What a person should know of a plan before it runs.
#pragma once

#include <qmill/core/plan.h>

namespace qmill {

// Each adds to plan.warnings or plan.remarks, from what the plan holds already.
void add_source_warnings(Plan& plan, const TensorSource& source);
void add_remarks(Plan& plan, const TensorSource& source);
void add_calibration_warnings(Plan& plan, const TensorSource& source);
void add_merge_warnings(Plan& plan);

}  // namespace qmill
