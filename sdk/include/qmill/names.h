// Names of plugins, formats, filters and options: '-' and '_' are the same character.
#pragma once

#include <qmill/export.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

// "quip-seed" -> "quip_seed": the spelling by which names are compared and listed. [any-thread]
QMILL_API std::string canonical_name(std::string_view name);

QMILL_API bool same_name(std::string_view a, std::string_view b);

// The candidate with the fewest edits to `name`, or empty when none is near enough to be a likely slip.
QMILL_API std::string nearest_name(std::string_view name, std::span<const std::string> candidates);

// "no quantizer 'qiup'; did you mean 'quip'? (known: fp16, gptq, quip)": the message of every unknown name.
QMILL_API std::string unknown_name_message(std::string_view what, std::string_view name, std::vector<std::string> known);

// The name of a tensor's layer: without a trailing ".weight".
QMILL_API std::string layer_base(std::string_view tensor_name);

// A number that belongs to (seed, name) alone, so that nothing depends on the order of layers or on threads.
// 64-bit FNV-1a over the name, mixed with the seed by the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
QMILL_API std::uint64_t seed_for(std::uint64_t seed, std::string_view name);

}  // namespace qmill
