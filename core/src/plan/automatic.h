// Which quantizer `auto` takes, and which stands in for one that cannot write a format: by what quantizers say of themselves.
#pragma once

#include <qmill/core/host.h>

namespace qmill {

// Whether it writes this format, its own formats included.
bool writes(const Quantizer& quantizer, const WritableFormat& format);

// Plain rounding; for a format without codes the first quantizer that writes it. Throws Error(plugin) if there is none.
const Quantizer& plain_quantizer(const Host& host, const WritableFormat& format);

// Of the quantizers that use calibration data, those that `auto` may take, the cheapest first.
std::vector<const Quantizer*> calibrated_quantizers(const Host& host);

// Whether `auto` might choose it for some layer.
bool may_be_automatic(const Host& host, const Quantizer& quantizer);

}  // namespace qmill
