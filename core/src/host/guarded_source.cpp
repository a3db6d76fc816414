#include "host/guarded_source.h"

#include "host/guard.h"

#include <qmill/source_details.h>

namespace qmill {
namespace {

class GuardedSource final : public TensorSource, public SourceDetails {
 public:
  GuardedSource(std::unique_ptr<TensorSource> source, std::string loader)
      : source_(std::move(source)),
        loader_(std::move(loader)),
        tensors_(guard(loader_, "tensors", "", [&] { return std::cref(source_->tensors()); })),
        metadata_(guard(loader_, "metadata", "", [&] { return std::cref(source_->metadata()); })) {}

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }
  std::vector<std::filesystem::path> files() const override {
    return guard(loader_, "files", "", [&] { return source_->files(); });
  }
  void read_part(std::size_t index, std::uint64_t begin, std::span<std::byte> out) const override {
    guard(loader_, "read", name(index), [&] { source_->read_part(index, begin, out); });
  }
  std::optional<Extent> extent(std::size_t index) const override {
    return guard(loader_, "extent", name(index), [&] { return source_->extent(index); });
  }
  void prefetch(std::size_t index) const override {
    guard(loader_, "prefetch", name(index), [&] { source_->prefetch(index); });
  }
  std::string stored_type(std::size_t index) const override {
    return guard(loader_, "stored_type", name(index), [&] { return qmill::stored_type(*source_, index); });
  }
  std::vector<std::string> remarks() const override {
    return guard(loader_, "remarks", "", [&] { return source_remarks(*source_); });
  }

 private:
  std::string_view name(std::size_t index) const { return index < tensors_.size() ? std::string_view(tensors_[index].name) : ""; }

  const std::unique_ptr<TensorSource> source_;
  const std::string loader_;
  const std::vector<TensorInfo>& tensors_;
  const std::map<std::string, std::string>& metadata_;
};

}  // namespace

std::unique_ptr<TensorSource> guarded_source(std::unique_ptr<TensorSource> source, std::string loader) {
  if (source == nullptr)
    throw Error(ErrorKind::plugin, fmt::format("plugin '{}' returned nothing when it opened the model", loader),
                "report this to the author of the plugin");
  return std::make_unique<GuardedSource>(std::move(source), std::move(loader));
}

}  // namespace qmill
