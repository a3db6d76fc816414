// The C++ API in one header. It has two parts, which do the same work:
//
//   qmill/core/*.h    the general API: a Conversion opens a model, plans, runs and reports. New programs use this one.
//   qmill/compat/*.h  the same features under the names that users of Python tools know, such as convert_to_int8()
//                     (docs/api-coverage.md lists them).
//
// Plugins include qmill/plugin.h instead.
#pragma once

// The general API.
#include <qmill/core/batch.h>
#include <qmill/core/compare.h>
#include <qmill/core/conversion.h>
#include <qmill/core/default_host.h>
#include <qmill/core/dequantize.h>
#include <qmill/core/edit.h>
#include <qmill/core/layer_config.h>
#include <qmill/core/logging.h>
#include <qmill/core/option_table.h>
#include <qmill/core/stored_layers.h>
#include <qmill/core/verify.h>

// The documented names.
#include <qmill/compat/constants.h>
#include <qmill/compat/convert_to_int8.h>
#include <qmill/compat/converters.h>
#include <qmill/compat/lora.h>
#include <qmill/compat/quality_reporter.h>
#include <qmill/compat/unified_safetensors_loader.h>
