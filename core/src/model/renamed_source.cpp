#include "model/renamed_source.h"

#include "model/source_checks.h"
#include "readers/text_encoder_names.h"

#include <qmill/error.h>
#include <qmill/source_details.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

class RenamedSource final : public TensorSource, public SourceDetails {
 public:
  explicit RenamedSource(std::unique_ptr<TensorSource> source) : source_(std::move(source)), renaming_(renaming_of(*source_)) {
    for (const TensorInfo& tensor : source_->tensors()) {
      const auto name = renaming_.names.find(tensor.name);
      const auto heads = renaming_.heads.find(tensor.name);
      heads_.push_back(heads == renaming_.heads.end() ? 0 : heads->second);
      tensors_.push_back(tensor);
      if (name != renaming_.names.end()) tensors_.back().name = name->second;
    }
  }

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override { return source_->metadata(); }
  std::vector<std::filesystem::path> files() const override { return source_->files(); }

  void read_part(std::size_t index, std::uint64_t begin, std::span<std::byte> out) const override {
    if (heads_[index] == 0) return source_->read_part(index, begin, out);
    if (out.empty()) return;
    const auto rows = static_cast<std::uint64_t>(tensors_[index].shape[0]);
    const std::uint64_t row_bytes = static_cast<std::uint64_t>(tensors_[index].bytes()) / rows;
    while (!out.empty()) {
      const std::uint64_t within = begin % row_bytes;
      const std::size_t count = std::min<std::uint64_t>(row_bytes - within, out.size());
      const std::uint64_t row = stored_row(begin / row_bytes, rows / static_cast<std::uint64_t>(heads_[index]));
      source_->read_part(index, row * row_bytes + within, out.first(count));
      out = out.subspan(count);
      begin += count;
    }
  }

  std::optional<Extent> extent(std::size_t index) const override { return heads_[index] == 0 ? source_->extent(index) : std::nullopt; }

  void prefetch(std::size_t index) const override { source_->prefetch(index); }

  std::string stored_type(std::size_t index) const override { return qmill::stored_type(*source_, index); }

  std::vector<std::string> remarks() const override {
    std::vector<std::string> remarks = source_remarks(*source_);
    remarks.push_back(renaming_.dialect.empty()
                          ? std::string("`rename` changes nothing: the names are of no text encoder that it knows")
                          : fmt::format("the tensors are renamed: they had names of {}, and ComfyUI looks for others", renaming_.dialect));
    return remarks;
  }

 private:
  // Of row i of the original: within a head of `size` rows, llama.cpp stores row i + half * s at 2 i + s (LlamaModel.permute).
  static std::uint64_t stored_row(std::uint64_t row, std::uint64_t size) {
    const std::uint64_t half = size / 2, head = row / size, place = row % size;
    return head * size + 2 * (place % half) + place / half;
  }

  const std::unique_ptr<TensorSource> source_;
  const Renaming renaming_;
  std::vector<TensorInfo> tensors_;
  std::vector<std::int64_t> heads_;  // by tensor; 0: the rows are in order
};

}  // namespace

std::unique_ptr<TensorSource> renamed(std::unique_ptr<TensorSource> source) {
  if (const std::string evidence = quantization_evidence(*source); !evidence.empty())
    throw Error(ErrorKind::unsupported, "`rename` is for models that are not quantized: " + evidence, "use the original model");
  return std::make_unique<RenamedSource>(std::move(source));
}

}  // namespace qmill
