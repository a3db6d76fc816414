// A signal may end a call of the system before it did anything.
#pragma once

#include <cerrno>

namespace qmill {

// What the call returns when no signal ended it.
template <class Call>
auto retried(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

}  // namespace qmill
