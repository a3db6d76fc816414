#include "call.h"

#include <qmill/core/default_host.h>
#include <qmill/error.h>

#include <memory>
#include <mutex>

namespace qmill::python {
namespace {

[[noreturn]] void refuse(const char* key) {
  throw Error(ErrorKind::internal, std::string("the request's '") + key + "' is not what the call takes");
}

template <class Type>
Type value_of(const Json& request, const char* key) {
  const auto found = request.find(key);
  if (found == request.end()) refuse(key);
  try {
    return found->get<Type>();
  } catch (const Json::exception&) {
    refuse(key);
  }
}

template <class Type>
Type value_or(const Json& request, const char* key, Type absent) {
  const auto found = request.find(key);
  return found == request.end() || found->is_null() ? absent : value_of<Type>(request, key);
}

}  // namespace

std::string Call::text(const char* key) const { return value_of<std::string>(request, key); }
std::string Call::text(const char* key, const std::string& absent) const { return value_or(request, key, absent); }
bool Call::flag(const char* key, bool absent) const { return value_or(request, key, absent); }

std::int64_t Call::integer(const char* key, std::int64_t absent) const {
  const auto found = request.find(key);
  if (found == request.end() || found->is_null()) return absent;
  // Not cut, and not wrapped around.
  if (!found->is_number_integer() || (found->is_number_unsigned() && found->get<std::uint64_t>() >> 63 != 0)) refuse(key);
  return found->get<std::int64_t>();
}

double Call::real(const char* key, double absent) const { return value_or(request, key, absent); }

const Json& Call::member(const char* key) const {
  const auto found = request.find(key);
  if (found == request.end()) refuse(key);
  return *found;
}

const at::Tensor& Call::tensor(std::size_t index) const {
  if (index >= tensors.size()) throw Error(ErrorKind::internal, "the call has too few tensors");
  return tensors[index];
}

const Host& Call::host() const {
  static std::mutex mutex;
  static std::map<std::vector<std::string>, std::unique_ptr<Host>> hosts;
  const auto dirs = value_or<std::vector<std::string>>(request, "plugin_dirs", {});
  if (dirs.empty()) return default_host();
  const std::lock_guard lock(mutex);
  std::unique_ptr<Host>& host = hosts[dirs];
  if (host == nullptr) host = std::make_unique<Host>(std::vector<std::filesystem::path>(dirs.begin(), dirs.end()));
  return *host;
}

}  // namespace qmill::python
