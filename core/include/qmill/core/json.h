// Results as JSON, indented: docs/json.md says what each field means. Options in texts stand in `backticks`. All functions: [any-thread].
//
// Plans, conversions and qualities print themselves: Plan::json(), report_json(), quality_json().
#pragma once

#include <qmill/core/calibration.h>
#include <qmill/core/dequantize.h>
#include <qmill/core/option_table.h>
#include <qmill/core/quantize_weight.h>
#include <qmill/core/verify.h>

namespace qmill {

// What a file holds. Throws what recognise() and stored_layers() throw.
QMILL_CORE_API std::string inspect_json(const Host& host, const TensorSource& source);

QMILL_CORE_API std::string verify_json(const std::filesystem::path& file, const VerifyReport& report);
QMILL_CORE_API std::string dequantize_json(const DequantizeOptions& options, const DequantizeReport& report);
QMILL_CORE_API std::string statistics_json(const StatisticsOptions& options, const StatisticsReport& report);

// Of a weight that was quantized in memory: as report_json() has its layers.
QMILL_CORE_API std::string layer_report_json(const LayerReport& report);

// What was found by the host: all candidates, or one with the options of its quantizers.
QMILL_CORE_API std::string plugins_json(const Host& host);
QMILL_CORE_API std::string plugin_json(const Host& host, const PluginCandidate& plugin);

// All filters, or one.
QMILL_CORE_API std::string filters_json(const Host& host);
QMILL_CORE_API std::string filter_json(const ModelFilter& filter);

// All options of a conversion.
QMILL_CORE_API std::string options_json(const OptionTable& table);

}  // namespace qmill
