// Files: what they hold, and how good they are.
#include "call.h"
#include "options.h"
#include "tensors.h"

#include <qmill/core/compare.h>
#include <qmill/core/json.h>
#include <qmill/core/model_identity.h>
#include <qmill/error.h>
#include <qmill/tensor.h>

#include <ATen/ops/empty.h>

#include <mutex>

namespace qmill::python {
namespace {

// Runs what reads `file`; errors name it.
template <class Body>
Answer in_file(const std::string& file, Body body) {
  try {
    return body();
  } catch (Error& error) {
    if (error.contexts().empty() || error.contexts().back().find(file) == std::string::npos) error.in("'" + file + "'");
    throw;
  }
}

Answer inspect(const Call& call) {
  const std::string file = call.text("path");
  const std::unique_ptr<TensorSource> source = call.host().open(file);
  return in_file(file, [&] { return Answer{inspect_json(call.host(), *source)}; });
}

Answer verify(const Call& call) {
  const std::string file = call.text("path");
  const std::unique_ptr<TensorSource> source = call.host().open(file);
  return {verify_json(file, verify_model(call.host(), *source, {.read_data = call.flag("read_data", true)}, call.hooks.cancel))};
}

Answer compare(const Call& call) {
  const std::string file = call.text("quantized");
  const std::unique_ptr<TensorSource> quantized = call.host().open(file);
  const std::unique_ptr<TensorSource> source = call.host().open(call.text("source"));
  return in_file(file, [&] {
    return Answer{quality_json(
        compare_models(call.host(), *quantized, *source, thread_count(call), call.hooks.cancel, call.text("calibration_data", "")))};
  });
}

Answer calibrate(const Call& call) {
  StatisticsOptions options;
  options.input = call.text("rows");
  options.output = call.text("output");
  options.overwrite = call.flag("overwrite", false);
  options.sync = call.flag("sync", true);
  options.threads = thread_count(call);
  return {statistics_json(options, write_statistics(call.host(), options, call.hooks.cancel))};
}

Answer filters(const Call& call) { return {filters_json(call.host())}; }

Answer plugins(const Call& call) {
  call.host().load_all();
  Json list = Json::array();
  for (const PluginCandidate& candidate : call.host().candidates()) list.push_back(Json::parse(plugin_json(call.host(), candidate)));
  return {list.dump()};
}

Answer identity(const Call& call) {
  const std::string file = call.text("path");
  const std::unique_ptr<TensorSource> source = call.host().open(file);
  return in_file(file, [&] { return Answer{Json{{"identity", Json::parse(model_identity(*source))}}.dump()}; });
}

// --- open models ---

struct OpenModel {
  std::unique_ptr<TensorSource> source;
  std::map<std::string, std::size_t, std::less<>> index;  // of tensors, by name
};

std::mutex models_mutex;
std::map<std::int64_t, std::shared_ptr<OpenModel>> models;  // guarded by models_mutex

std::shared_ptr<OpenModel> model_of(const Call& call) {
  const std::lock_guard lock(models_mutex);
  const auto found = models.find(call.integer("handle", 0));
  if (found == models.end()) throw Error(ErrorKind::usage, "the model is closed", "open it again");
  return found->second;
}

Answer open_model(const Call& call) {
  static std::int64_t last = 0;  // guarded by models_mutex
  auto model = std::make_shared<OpenModel>(OpenModel{call.host().open(call.text("path")), {}});
  Json tensors = Json::array();
  for (const TensorInfo& tensor : model->source->tensors()) {
    model->index.emplace(tensor.name, model->index.size());
    tensors.push_back({{"name", tensor.name}, {"dtype", dtype_name(tensor.dtype)}, {"shape", tensor.shape}});
  }
  Json metadata = Json::object();
  for (const auto& [key, value] : model->source->metadata()) metadata[key] = value;
  Json files = Json::array();
  for (const std::filesystem::path& file : model->source->files()) files.push_back(std::filesystem::absolute(file).string());
  const std::lock_guard lock(models_mutex);
  models[++last] = std::move(model);
  return {Json{{"handle", last}, {"tensors", tensors}, {"metadata", metadata}, {"files", files}}.dump(-1, ' ', false,
                                                                                                      Json::error_handler_t::replace)};
}

Answer read_model_tensor(const Call& call) {
  const std::shared_ptr<OpenModel> model = model_of(call);
  const std::string name = call.text("name");
  const auto found = model->index.find(name);
  if (found == model->index.end()) throw Error(ErrorKind::usage, "there is no tensor '" + name + "'");
  const TensorInfo& info = model->source->tensors()[found->second];
  try {
    const at::Tensor tensor = at::empty(info.shape, scalar_type(info.dtype));
    model->source->read(found->second, {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()});
    Outputs outputs;
    outputs.add("tensor", tensor);
    return outputs.answer(Json::object());
  } catch (Error& error) {
    throw error.in("tensor '" + name + "'");
  }
}

Answer close_model(const Call& call) {
  const std::lock_guard lock(models_mutex);
  models.erase(call.integer("handle", 0));
  return {};
}

}  // namespace

void add_file_calls(Functions& functions) {
  functions["inspect"] = inspect;
  functions["verify"] = verify;
  functions["compare"] = compare;
  functions["calibrate"] = calibrate;
  functions["filters"] = filters;
  functions["plugins"] = plugins;
  functions["model_identity"] = identity;
  functions["open_model"] = open_model;
  functions["read_model_tensor"] = read_model_tensor;
  functions["close_model"] = close_model;
}

}  // namespace qmill::python
