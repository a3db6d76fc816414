// The whole C++ API of conversions. Plugins include qmill/plugin.h instead.
#pragma once

#include <qmill/compat/constants.h>
#include <qmill/compat/convert_to_int8.h>
#include <qmill/compat/converters.h>
#include <qmill/core/layer_config.h>
#include <qmill/core/logging.h>
#include <qmill/compat/lora.h>
#include <qmill/compat/quality_reporter.h>
#include <qmill/compat/unified_safetensors_loader.h>
