#include <qmill/error.h>

#include <algorithm>
#include <utility>

namespace qmill {

Error::Error(ErrorKind kind, std::string message, std::string advice)
    : kind_(kind), message_(std::move(message)), advice_(std::move(advice)) {
  compose();
}

Error::~Error() = default;

Error& Error::in(std::string context) {
  if (std::find(contexts_.begin(), contexts_.end(), context) == contexts_.end()) contexts_.push_back(std::move(context));
  compose();
  return *this;
}

void Error::compose() {
  line_.clear();
  for (auto context = contexts_.rbegin(); context != contexts_.rend(); ++context) line_ += *context + ": ";
  line_ += message_;
  if (!advice_.empty()) line_ += "; " + advice_;
}

std::string_view error_kind_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::usage:
      return "usage";
    case ErrorKind::input:
      return "input";
    case ErrorKind::unsupported:
      return "unsupported";
    case ErrorKind::numeric:
      return "numeric";
    case ErrorKind::io:
      return "io";
    case ErrorKind::plugin:
      return "plugin";
    case ErrorKind::cancelled:
      return "cancelled";
    case ErrorKind::internal:
      return "internal";
  }
  return "unknown";
}

}  // namespace qmill
