// What plan and convert print for people.
#pragma once

#include <qmill/core/conversion.h>

#include <string>

namespace qmill::app {

// A line per tensor that is not merely copied, then totals and the exact size.
std::string plan_text(const Plan& plan);

// One screen: what became of the layers, size, time, quality, warnings.
std::string convert_summary(const Plan& plan, const ConvertReport& report);

// "quantize  int8 row (rtn)  blocks.0.q.weight  primary": one decision.
std::string decision_line(const Decision& decision);

}  // namespace qmill::app
