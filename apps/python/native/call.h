// What a call is given, and what it gives back.
#pragma once

#include <qmill/core/convert.h>
#include <qmill/core/host.h>

#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace qmill::python {

using Json = nlohmann::ordered_json;

struct Call {
  Json request;
  std::vector<at::Tensor> tensors;
  RunHooks hooks;

  // Members of the request. Throw Error(internal) where one is missing or of another type: the package makes requests, not the user.
  std::string text(const char* key) const;
  std::string text(const char* key, const std::string& absent) const;
  bool flag(const char* key, bool absent) const;
  std::int64_t integer(const char* key, std::int64_t absent) const;
  double real(const char* key, double absent) const;
  const Json& member(const char* key) const;
  const at::Tensor& tensor(std::size_t index) const;

  // The host with the request's `plugin_dirs`, which lives as long as the process.
  const Host& host() const;
};

struct Answer {
  std::string json = "{}";
  std::vector<at::Tensor> tensors = {};
};

using Function = Answer (*)(const Call&);
using Functions = std::map<std::string, Function>;

// What files, models, tensors and plugins can be asked for; each adds its calls.
void add_run_calls(Functions& functions);
void add_file_calls(Functions& functions);
void add_tensor_calls(Functions& functions);
void add_documented_calls(Functions& functions);

}  // namespace qmill::python
