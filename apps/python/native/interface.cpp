#include "interface.h"

#include "call.h"

#include <qmill/core/logging.h>
#include <qmill/error.h>

#include <ATen/DLConvertor.h>

#include <atomic>
#include <exception>
#include <new>

struct QmillReply {
  bool is_error = false;
  std::string text;
  std::vector<at::Tensor> tensors;
};

struct QmillCancel {
  std::atomic<bool> is_set = false;
};

namespace qmill::python {
namespace {

// Changes with interface.h and with the calls.
constexpr int kInterfaceVersion = 1;

const Functions& functions() {
  static const Functions all = [] {
    Functions made;
    add_run_calls(made);
    add_file_calls(made);
    add_tensor_calls(made);
    add_documented_calls(made);
    return made;
  }();
  return all;
}

std::string error_text(const Error& error, bool is_quality) {
  return Json{{"kind", is_quality ? "quality" : std::string(error_kind_name(error.kind()))},
              {"message", error.message()},
              {"advice", error.advice()},
              {"where", error.contexts()},
              {"text", error.what()}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Owned by this process until LibTorch takes them: a call that fails frees those that are left.
class GivenTensors {
 public:
  GivenTensors(DLManagedTensor** tensors, std::size_t count) : tensors_(tensors, tensors + count) {}
  ~GivenTensors() {
    for (DLManagedTensor* tensor : tensors_)
      if (tensor != nullptr && tensor->deleter != nullptr) tensor->deleter(tensor);
  }
  GivenTensors(const GivenTensors&) = delete;
  GivenTensors& operator=(const GivenTensors&) = delete;

  std::vector<at::Tensor> take() {
    std::vector<at::Tensor> taken;
    for (DLManagedTensor*& tensor : tensors_) {
      taken.push_back(at::fromDLPack(tensor));
      tensor = nullptr;
    }
    return taken;
  }

 private:
  std::vector<DLManagedTensor*> tensors_;
};

void fail(QmillReply& reply, const Error& error, bool is_quality = false) noexcept {
  reply.is_error = true;
  reply.tensors.clear();
  try {
    reply.text = error_text(error, is_quality);
  } catch (const std::bad_alloc&) {
    reply.text.clear();  // the caller takes it for what it is: no memory
  }
}

void run(QmillReply& reply, const char* name, const char* request, Call call) {
  const auto found = functions().find(name);
  if (found == functions().end()) throw Error(ErrorKind::internal, std::string("there is no call '") + name + "'");
  call.request = Json::parse(request);
  Answer answer = found->second(call);
  reply.text = std::move(answer.json);
  reply.tensors = std::move(answer.tensors);
}

}  // namespace
}  // namespace qmill::python

using namespace qmill;  // NOLINT: the functions below have C linkage

int qmill_interface_version() { return python::kInterfaceVersion; }

QmillReply* qmill_call(const char* name, const char* request, DLManagedTensor** tensors, std::size_t count, QmillProgressFunction progress,
                       void* context, QmillCancel* cancel) {
  auto* reply = new (std::nothrow) QmillReply;
  if (reply == nullptr) return nullptr;
  try {
    python::Call call;
    call.tensors = python::GivenTensors(tensors, count).take();
    if (cancel != nullptr) call.hooks.cancel = &cancel->is_set;
    if (progress != nullptr)
      call.hooks.progress = [progress, context](const Progress& state) {
        const QmillProgress now{state.layers_done, state.layers, state.bytes_done, state.bytes};
        progress(&now, context);
      };
    python::run(*reply, name, request, std::move(call));
  } catch (const QualityError& error) {
    python::fail(*reply, error, true);
  } catch (const Error& error) {
    python::fail(*reply, error);
  } catch (const std::bad_alloc&) {
    python::fail(*reply, Error(ErrorKind::io, "out of memory", "use fewer threads, or a machine with more memory"));
  } catch (const std::exception& error) {
    python::fail(*reply, Error(ErrorKind::internal, error.what()));
  } catch (...) {
    python::fail(*reply, Error(ErrorKind::internal, "something was thrown that is no exception"));
  }
  return reply;
}

const char* qmill_reply_text(const QmillReply* reply) { return reply->text.c_str(); }
int qmill_reply_is_error(const QmillReply* reply) { return reply->is_error ? 1 : 0; }
DLManagedTensor* qmill_take_tensor(QmillReply* reply, std::size_t index) {
  try {
    return at::toDLPack(reply->tensors[index]);
  } catch (const std::exception&) {
    return nullptr;
  }
}
void qmill_free_reply(QmillReply* reply) { delete reply; }

QmillCancel* qmill_new_cancel() { return new (std::nothrow) QmillCancel; }
void qmill_cancel(QmillCancel* cancel) { cancel->is_set = true; }
void qmill_free_cancel(QmillCancel* cancel) { delete cancel; }

void qmill_set_log(QmillLogFunction function) {
  if (function == nullptr)
    set_log_sink({});
  else
    set_log_sink([function](LogLevel level, std::string_view text) { function(static_cast<int>(level), std::string(text).c_str()); });
}
