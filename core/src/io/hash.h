// Short texts that stand for long contents.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace qmill {

// MurmurHash3 (x64, 128 bits; Austin Appleby, public domain) of the bytes, as 32 hexadecimal digits.
std::string hash_text(std::span<const std::byte> bytes);

}  // namespace qmill
