// A Loader reads one kind of model container.
#pragma once

#include <qmill/tensor_info.h>

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>

namespace qmill {

// Where a tensor's bytes lie, as they are, so that the host can copy them from file to file.
struct Extent {
  std::filesystem::path file;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

// An open model. The whole header was checked by open(): names are unique, sizes agree with shapes and types, and every
// tensor lies inside its file.
class QMILL_API TensorSource {
 public:
  virtual ~TensorSource();

  virtual const std::vector<TensorInfo>& tensors() const = 0;              // in the order of their bytes [any-thread]
  virtual const std::map<std::string, std::string>& metadata() const = 0;  // [any-thread]
  virtual std::vector<std::filesystem::path> files() const = 0;            // every file that is read [any-thread]

  // Bytes [begin, begin + out.size()) of tensor number `index` (row-major, little-endian); they lie within its bytes(). Throws
  // Error(io), and Error(input) when the file has shrunk since open(). [any-thread, concurrently]
  virtual void read_part(std::size_t index, std::uint64_t begin, std::span<std::byte> out) const = 0;

  // The whole tensor; `out` has exactly its bytes().
  void read(std::size_t index, std::span<std::byte> out) const { read_part(index, 0, out); }

  // Nothing when the bytes are not in a file as read() gives them. [any-thread]
  virtual std::optional<Extent> extent(std::size_t index) const = 0;

  // A hint that this tensor will be read soon. Default: nothing. [any-thread]
  virtual void prefetch(std::size_t index) const;
};

struct LoaderInfo {
  std::string name;
  std::string summary;
  std::vector<std::string> extensions;  // ".safetensors": for help texts; probe() decides
};

class QMILL_API Loader {
 public:
  virtual ~Loader();
  virtual const LoaderInfo& info() const = 0;
  // Whether this loader is the one for `path`, by name and at most a few bytes; no error for what it does not know. [any-thread]
  virtual bool probe(const std::filesystem::path& path) const = 0;
  // Checks the header completely; reads no tensor data. Throws Error(input) that says what is wrong where. [any-thread]
  virtual std::unique_ptr<TensorSource> open(const std::filesystem::path& path) const = 0;
};

}  // namespace qmill
