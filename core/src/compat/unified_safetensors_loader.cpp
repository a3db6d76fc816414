#include <qmill/compat/unified_safetensors_loader.h>

#include "model/value_source.h"

#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>

namespace qmill {
namespace {

// LibTorch has no type for those below a byte: they may be listed, not read.
bool is_readable(DType dtype) { return dtype_bits(dtype) >= 8; }

}  // namespace

struct UnifiedSafetensorsLoader::State {
  std::filesystem::path path;
  std::unique_ptr<TensorSource> source;
  std::map<std::string, std::size_t, std::less<>> index;
  std::map<std::size_t, at::Tensor> held;  // those that were read ahead
  TaskPool tasks{1};
  std::shared_ptr<BufferPool> buffers = std::make_shared<BufferPool>(0);  // memory from the system: the caller keeps tensors

  std::size_t find(std::string_view key) const {
    const auto found = index.find(key);
    if (found != index.end()) return found->second;
    std::vector<std::string> names;
    for (const auto& [name, number] : index) names.push_back(name);
    throw Error(ErrorKind::usage, unknown_name_message("tensor", key, names)).in(fmt::format("'{}'", path.string()));
  }

  at::Tensor read(std::size_t number) {
    try {
      return read_tensor(*source, number, *buffers, tasks);
    } catch (Error& error) {
      throw error.in(fmt::format("tensor '{}'", source->tensors()[number].name)).in(fmt::format("'{}'", path.string()));
    }
  }
};

UnifiedSafetensorsLoader::UnifiedSafetensorsLoader(const std::filesystem::path& path, bool low_memory)
    : UnifiedSafetensorsLoader(default_host(), path, low_memory) {}

UnifiedSafetensorsLoader::UnifiedSafetensorsLoader(const Host& host, const std::filesystem::path& path, bool low_memory)
    : state_(std::make_unique<State>()) {
  state_->path = path;
  state_->source = host.open(path);
  const std::vector<TensorInfo>& tensors = state_->source->tensors();
  for (std::size_t i = 0; i < tensors.size(); ++i) state_->index.emplace(tensors[i].name, i);
  for (std::size_t i = 0; i < tensors.size() && !low_memory; ++i)
    if (is_readable(tensors[i].dtype)) state_->held.emplace(i, state_->read(i));
}

UnifiedSafetensorsLoader::~UnifiedSafetensorsLoader() = default;

UnifiedSafetensorsLoader::State& UnifiedSafetensorsLoader::open() const {
  if (state_ == nullptr) throw Error(ErrorKind::usage, "the loader is closed", "make another one");
  return *state_;
}

std::vector<std::string> UnifiedSafetensorsLoader::keys() const {
  std::vector<std::string> keys;
  for (const TensorInfo& tensor : open().source->tensors()) keys.push_back(tensor.name);
  return keys;
}

const std::map<std::string, std::string>& UnifiedSafetensorsLoader::metadata() const { return open().source->metadata(); }

std::vector<std::int64_t> UnifiedSafetensorsLoader::get_shape(std::string_view key) const {
  const State& state = open();
  return state.source->tensors()[state.find(key)].shape;
}

std::int64_t UnifiedSafetensorsLoader::get_ndim(std::string_view key) const { return static_cast<std::int64_t>(get_shape(key).size()); }

at::Tensor UnifiedSafetensorsLoader::get_tensor(std::string_view key) {
  State& state = open();
  const std::size_t number = state.find(key);
  const auto held = state.held.find(number);
  return held != state.held.end() ? held->second : state.read(number);
}

void UnifiedSafetensorsLoader::mark_processed(std::string_view key) {
  State& state = open();
  state.held.erase(state.find(key));
}

std::uint64_t UnifiedSafetensorsLoader::bytes_held() const {
  std::uint64_t bytes = 0;
  for (const auto& [number, tensor] : open().held) bytes += tensor.nbytes();
  return bytes;
}

void UnifiedSafetensorsLoader::close() { state_.reset(); }

}  // namespace qmill
