// Options of a conversion, from the members of a request.
#pragma once

#include "call.h"

#include <qmill/core/option_table.h>

#include <optional>

namespace qmill::python {

// {"options": {"name": value, "list": [values], ...}}; null is not given. A quantizer's option may have its own name ("num_iter"). Throws
// Error(usage) for a value that is no boolean, number or text, and for names that nothing has.
std::vector<GivenOption> given_options(const Json& request, const OptionTable& table);

// {"layer_config": {...}}: a configuration that is parsed already. Throws Error(input).
std::optional<LayerConfig> layer_config_of(const Json& request);

// A JSON value as an option's. Throws Error(usage) that names the option.
OptionValue option_value(const std::string& name, const Json& value);

// {"threads": N}, 0 to 1024. Throws Error(usage).
int thread_count(const Call& call);

}  // namespace qmill::python
