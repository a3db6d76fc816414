// How specific a regular expression is.
#pragma once

#include <cstddef>
#include <string_view>

namespace qmill {

// Characters that every match of a valid Perl pattern must contain, counted once each: escapes stand for their character,
// classes of one character count, optional parts and look-arounds do not, of alternatives the shortest counts.
std::size_t count_literals(std::string_view pattern);

}  // namespace qmill
