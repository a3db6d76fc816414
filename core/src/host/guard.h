// Every call into a plugin goes through here: whatever is thrown becomes an Error that says who and where.
#pragma once

#include <qmill/error.h>

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <new>
#include <string_view>
#include <utility>

namespace qmill {

// `call` and `plugin` name what is done by whom; `tensor` may be empty.
template <class Function>
auto guard(std::string_view plugin, std::string_view call, std::string_view tensor, Function&& function) {
  const auto where = [&](Error error) {
    error.in(fmt::format("plugin '{}', {}", plugin, call));
    if (!tensor.empty()) error.in(fmt::format("tensor '{}'", tensor));
    return error;
  };
  try {
    return std::forward<Function>(function)();
  } catch (const Error& error) {
    throw where(error);
  } catch (const std::bad_alloc&) {
    throw where(Error(ErrorKind::io, "out of memory", "use fewer threads, or a machine with more memory"));
  } catch (const c10::Error& error) {
    throw where(Error(ErrorKind::plugin, error.what_without_backtrace()));
  } catch (const std::exception& error) {
    throw where(Error(ErrorKind::plugin, error.what()));
  } catch (...) {
    throw where(Error(ErrorKind::plugin, "it threw something that is not an exception"));
  }
}

}  // namespace qmill
