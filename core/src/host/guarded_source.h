// Models that loaders of plugins have opened, with a guard around every call.
#pragma once

#include <qmill/loader.h>

#include <memory>
#include <string>

namespace qmill {

// `loader` names who opened it. Asks `source` for what is constant now.
std::unique_ptr<TensorSource> guarded_source(std::unique_ptr<TensorSource> source, std::string loader);

}  // namespace qmill
