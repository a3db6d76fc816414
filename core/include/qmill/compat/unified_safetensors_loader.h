// Gives the tensors of a model by name, for code that reads models itself.
#pragma once

#include <qmill/core/export.h>
#include <qmill/core/default_host.h>
#include <qmill/tensor.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

// Opens whatever a loader of the host does: a .safetensors file, an index, a folder of shards. One thread at a time.
class QMILL_CORE_API UnifiedSafetensorsLoader {
 public:
  // low_memory: tensors are read when they are asked for; else all are read now. Throws Error(io, input) that names the file;
  // Error(unsupported) for a tensor whose type LibTorch lacks, from the call that would read it.
  explicit UnifiedSafetensorsLoader(const std::filesystem::path& path, bool low_memory = false);
  UnifiedSafetensorsLoader(const Host& host, const std::filesystem::path& path, bool low_memory = false);
  ~UnifiedSafetensorsLoader();

  // All of these throw Error(usage) after close(), and for a key that the file lacks with the nearest one.
  std::vector<std::string> keys() const;  // in the order of the file
  const std::map<std::string, std::string>& metadata() const;
  std::vector<std::int64_t> get_shape(std::string_view key) const;
  std::int64_t get_ndim(std::string_view key) const;
  at::Tensor get_tensor(std::string_view key);  // on the CPU, in its own type
  void mark_processed(std::string_view key);    // its memory is given back; get_tensor() would read it again
  std::uint64_t bytes_held() const;             // of tensors that were read and are neither processed nor closed

  void close();  // gives back files and memory; a second call does nothing

 private:
  struct State;
  State& open() const;
  std::unique_ptr<State> state_;
};

}  // namespace qmill
