#include "source.h"

#include "checkpoint.h"
#include "pickle.h"
#include "zip.h"

#include <qmill/error.h>
#include <qmill/file_reader.h>
#include <qmill/shards.h>

#include <fmt/format.h>

#include <cstring>
#include <memory>
#include <mutex>

namespace pytorch {
namespace {

using qmill::Error;
using qmill::ErrorKind;
using qmill::FileReader;

constexpr std::string_view kZipMagic("PK\x03\x04", 4);

std::string read_text(const FileReader& reader, const ZipEntry& entry) {
  std::string text(entry.bytes, '\0');
  reader.read(entry.offset, std::as_writable_bytes(std::span(text)));
  return text;
}

void require_zip(const FileReader& reader) {
  const std::string first = read_text(reader, {0, std::min<std::uint64_t>(kZipMagic.size(), reader.size())});
  if (first == kZipMagic) return;
  if (first.starts_with('\x80'))
    throw Error(ErrorKind::unsupported, "it is a pickle without an archive around it, as PyTorch wrote before version 1.6",
                "load it where you trust it, and save it again with torch.save of PyTorch 1.6 or newer");
  throw Error(ErrorKind::input, "it is not a file of torch.save", "get it again");
}

// "archive/": what stands before data.pkl.
std::string prefix_of(const std::map<std::string, ZipEntry>& entries) {
  constexpr std::string_view kPickle = "data.pkl";
  std::optional<std::string> prefix;
  for (const auto& [name, entry] : entries) {
    if (name != kPickle && !name.ends_with("/data.pkl")) continue;
    if (prefix) throw Error(ErrorKind::input, fmt::format("it has two pickles, '{}{}' and '{}'", *prefix, kPickle, name));
    prefix = name.substr(0, name.size() - kPickle.size());
  }
  if (!prefix) throw Error(ErrorKind::input, "it is a zip archive without data.pkl: not a file of torch.save", "unpack it");
  if (entries.contains(*prefix + "constants.pkl"))
    throw Error(ErrorKind::unsupported, "it is a TorchScript program, not a model's tensors", "load it and save its state_dict()");
  for (const auto& [name, entry] : entries)
    if (!entry.is_stored)
      throw Error(ErrorKind::input, fmt::format("its entry '{}' is compressed, expected stored bytes", name),
                  "save it again with torch.save, which does not compress");
  return *prefix;
}

class FileSource final : public qmill::TensorSource {
 public:
  explicit FileSource(const std::filesystem::path& path) : reader_(path) {
    try {
      qmill::require_no_lfs_pointer(reader_);
      require_zip(reader_);
      const auto entries =
          read_zip_directory(reader_.size(), [&](std::uint64_t offset, std::span<std::byte> out) { reader_.read(offset, out); });
      const std::string prefix = prefix_of(entries);
      if (const auto order = entries.find(prefix + "byteorder"); order != entries.end()) require_little(order->second);
      const ZipEntry& pickle = entries.at(prefix + "data.pkl");
      if (pickle.bytes > kMaxPickleBytes)
        throw Error(ErrorKind::input, fmt::format("its data.pkl has {} bytes, allowed are {}", pickle.bytes, kMaxPickleBytes));
      views_ = named_tensors(read_pickle(read_text(reader_, pickle)), reader_.size(), [&](const std::string& key) {
        const auto found = entries.find(prefix + "data/" + key);
        return found == entries.end() ? std::nullopt : std::optional(found->second);
      });
    } catch (Error& error) {
      throw error.in(fmt::format("'{}'", path.string()));
    }
    for (const StoredView& view : views_) tensors_.push_back(view.info);
  }

  const std::vector<qmill::TensorInfo>& tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }
  std::vector<std::filesystem::path> files() const override { return {reader_.path()}; }

  void read_part(std::size_t index, std::uint64_t begin, std::span<std::byte> out) const override {
    const StoredView& view = views_[index];
    if (view.is_contiguous) return reader_.read(view.offset + begin, out);
    const std::shared_ptr<const std::vector<std::byte>> values = gathered(index);
    std::memcpy(out.data(), values->data() + begin, out.size());
  }

  std::optional<qmill::Extent> extent(std::size_t index) const override {
    const StoredView& view = views_[index];
    if (!view.is_contiguous) return std::nullopt;
    return qmill::Extent{reader_.path(), view.offset, view.span_bytes};
  }

  void prefetch(std::size_t index) const override { reader_.prefetch(views_[index].offset, views_[index].span_bytes); }

 private:
  void require_little(const ZipEntry& entry) const {
    const std::string order = read_text(reader_, {entry.offset, std::min<std::uint64_t>(entry.bytes, 16)});
    if (order != "little")
      throw Error(ErrorKind::unsupported, fmt::format("its byte order is '{}', expected 'little'", order), "save it on another machine");
  }

  // The row-major values of a view. The latest one is kept: a tensor is read in parts, one after the other or at once.
  std::shared_ptr<const std::vector<std::byte>> gathered(std::size_t index) const {
    const std::lock_guard lock(mutex_);
    if (!latest_ || latest_index_ != index) {
      latest_.reset();
      latest_ = std::make_shared<const std::vector<std::byte>>(gather(views_[index]));
      latest_index_ = index;
    }
    return latest_;
  }

  std::vector<std::byte> gather(const StoredView& view) const {
    std::vector<std::byte> span(view.span_bytes);
    reader_.read(view.offset, span);
    std::vector<std::byte> values(static_cast<std::size_t>(view.info.bytes()));
    const std::vector<std::int64_t>& shape = view.info.shape;
    const auto size = static_cast<std::size_t>(qmill::dtype_bits(view.info.dtype) / 8);
    std::vector<std::int64_t> place(shape.size());
    std::int64_t from = 0;  // in values of the span
    for (std::size_t to = 0; to < values.size(); to += size) {
      std::memcpy(values.data() + to, span.data() + static_cast<std::size_t>(from) * size, size);
      for (std::size_t i = shape.size(); i-- > 0;) {
        from += view.strides[i];
        if (++place[i] < shape[i]) break;
        from -= view.strides[i] * shape[i];
        place[i] = 0;
      }
    }
    return values;
  }

  FileReader reader_;
  std::map<std::string, std::string> metadata_;
  std::vector<StoredView> views_;
  std::vector<qmill::TensorInfo> tensors_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const std::vector<std::byte>> latest_;
  mutable std::size_t latest_index_ = 0;
};

}  // namespace

bool is_index(const std::filesystem::path& path) { return path.filename().string().ends_with(".bin.index.json"); }

std::unique_ptr<qmill::TensorSource> open_model(const std::filesystem::path& path) {
  const auto open = [](const std::filesystem::path& file) { return std::make_unique<FileSource>(file); };
  return is_index(path) ? qmill::open_indexed(path, open) : qmill::open_whole_model(path, open);
}

}  // namespace pytorch
