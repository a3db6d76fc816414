// The whole C++ API of conversions. Plugins include qmill/plugin.h instead.
#pragma once

#include <qmill/core/constants.h>
#include <qmill/core/convert_to_int8.h>
#include <qmill/core/converters.h>
#include <qmill/core/layer_config.h>
#include <qmill/core/logging.h>
#include <qmill/core/lora.h>
#include <qmill/core/quality_reporter.h>
#include <qmill/core/unified_safetensors_loader.h>
