// The one exception type of qmill: a kind for code, a sentence for people, and a chain of where it happened.
#pragma once

#include <qmill/export.h>

#include <exception>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

enum class ErrorKind {
  usage,        // an option, flag or name that does not exist or has a value that is not allowed
  input,        // a file or tensor that is not what it claims to be
  unsupported,  // a valid request that this format, quantizer or loader cannot serve
  numeric,      // data that cannot be computed with: NaN, infinity, overflow
  io,           // the operating system refused
  plugin,       // a plugin is missing, refused, or broke its contract
  cancelled,    // the person interrupted the run
  internal,     // a defect of qmill
};

// what() is one line: the contexts from the outermost to the innermost, the message, and what to do about it.
// Copyable; no member function throws anything but std::bad_alloc.
class QMILL_API Error : public std::exception {
 public:
  // `message` says what was found and what was expected; `advice` says what to do, and may be empty.
  Error(ErrorKind kind, std::string message, std::string advice = {});
  ~Error() override;  // defined in the SDK library, so that the type exists once and is caught by type everywhere

  ErrorKind kind() const noexcept { return kind_; }
  const std::string& message() const noexcept { return message_; }
  const std::string& advice() const noexcept { return advice_; }
  const std::vector<std::string>& contexts() const noexcept { return contexts_; }  // innermost first

  // Adds where it happened ("tensor 'a.weight'"), outside of what is already there. Returns *this.
  Error& in(std::string context);

  const char* what() const noexcept override { return line_.c_str(); }

 private:
  void compose();

  ErrorKind kind_;
  std::string message_;
  std::string advice_;
  std::vector<std::string> contexts_;
  std::string line_;
};

QMILL_API std::string_view error_kind_name(ErrorKind kind);

}  // namespace qmill
