// The C interface between the Python package and the libraries. Private to the package: both change together, and interface_version() says
// whether they fit.
//
// A call has a name, a request as JSON, and tensors. Its reply is JSON and tensors, or an error. Tensors cross as DLPack, on the CPU, so
// neither side needs the other's headers or the Python interface of LibTorch.
#pragma once

#include <cstddef>
#include <cstdint>

struct DLManagedTensor;

extern "C" {

#define QMILL_PYTHON_API __attribute__((visibility("default")))

struct QmillReply;   // of one call
struct QmillCancel;  // set by one thread to end a call of another

struct QmillProgress {
  std::uint64_t layers_done, layers, bytes_done, bytes;
};

// Called from one thread at a time. `context` is the caller's.
using QmillProgressFunction = void (*)(const QmillProgress* progress, void* context);
// `level`: debug 0, verbose 1, normal 2, minimal 3. `text` is UTF-8 without a line end.
using QmillLogFunction = void (*)(int level, const char* text);

QMILL_PYTHON_API int qmill_interface_version();

// Takes over the tensors. Never throws; `progress` and `cancel` may be null. The reply is the caller's, until qmill_free_reply.
// [any-thread]
QMILL_PYTHON_API QmillReply* qmill_call(const char* name, const char* request, DLManagedTensor** tensors, std::size_t count,
                                        QmillProgressFunction progress, void* context, QmillCancel* cancel);

// JSON. Of an error: {"kind", "message", "advice", "where": [innermost first], "text": all of it in one line}; empty if there was no memory
// for it.
QMILL_PYTHON_API const char* qmill_reply_text(const QmillReply* reply);
QMILL_PYTHON_API int qmill_reply_is_error(const QmillReply* reply);
// The caller owns it, and calls its deleter. Each at most once. Null if there is no memory.
QMILL_PYTHON_API DLManagedTensor* qmill_take_tensor(QmillReply* reply, std::size_t index);
QMILL_PYTHON_API void qmill_free_reply(QmillReply* reply);

QMILL_PYTHON_API QmillCancel* qmill_new_cancel();
QMILL_PYTHON_API void qmill_cancel(QmillCancel* cancel);
QMILL_PYTHON_API void qmill_free_cancel(QmillCancel* cancel);

// Where messages of the libraries go; null: to stderr.
QMILL_PYTHON_API void qmill_set_log(QmillLogFunction function);
}
