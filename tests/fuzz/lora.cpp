#include "core/src/lora/merge.h"
#include "plugins/safetensors/header.h"

#include <qmill/error.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace {

using qmill::DType;

// A file that lies in memory.
class Memory final : public qmill::TensorSource {
 public:
  Memory(std::vector<qmill::TensorInfo> tensors, std::map<std::string, std::string> metadata)
      : tensors_(std::move(tensors)), metadata_(std::move(metadata)) {}

  const std::vector<qmill::TensorInfo>& tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }
  std::vector<std::filesystem::path> files() const override { return {}; }
  std::optional<qmill::Extent> extent(std::size_t) const override { return std::nullopt; }
  void read_part(std::size_t index, std::uint64_t begin, std::span<std::byte> out) const override {
    if (begin + out.size() > static_cast<std::uint64_t>(tensors_[index].bytes())) std::abort();
    // 0x3c3c: near 1 as F16 and small as BF16 and F32, so that most entries can be merged.
    std::fill(out.begin(), out.end(), std::byte{0x3c});
  }

 private:
  std::vector<qmill::TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace

// The input is a safetensors file without its data: a LoRA, merged into a small model.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static qmill::TaskPool tasks(1);
  static const auto buffers = std::make_shared<qmill::BufferPool>(1 << 20);
  static const Memory model({{"model.a.weight", DType::f32, {4, 2}},
                             {"model.a.bias", DType::f16, {4}},
                             {"model.b.c.weight", DType::bf16, {2, 2, 2, 2}},
                             {"model.norm.weight", DType::f32, {4}},
                             {"model.d.0.qkv.weight", DType::f32, {4, 2}},
                             {"model.d.0.qkv.bias", DType::f32, {4}},
                             {"model.d.0.mod.weight", DType::f32, {4, 2}},
                             {"text_encoders.clip_l.transformer.text_model.a.weight", DType::f32, {4, 2}},
                             {"model.codes.weight", DType::i8, {4, 2}}},
                            {});
  static const qmill::BlockNames names = {
      {{"d.*", "t.*"}},
      {{"qkv", {{"to_q", 1}, {"to_k", 0}, {"to_v", 0}}, false}, {"qkv", {{"both", 2}}, false}, {"mod", {{"norm", 0}}, true}}};
  const qmill::ModelKind kinds[] = {qmill::ModelKind::unknown, qmill::ModelKind::diffusion, qmill::ModelKind::text_encoder};
  const qmill::KnownModel known{kinds[size % 3], {&names}, {&names}};
  const bool is_lenient = size % 5 < 2;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    // Of any length: as many bytes of data as the tensors say.
    std::uint64_t end = 8 + size;
    safetensors::Header header;
    for (const std::uint64_t more : {0, 8, 16, 20, 24, 28, 32, 48, 64, 80, 96, 128}) try {
        header = safetensors::parse_header(text, end + more);
        break;
      } catch (const qmill::Error&) {
      }
    std::vector<qmill::TensorInfo> tensors;
    for (const safetensors::Entry& entry : header.entries) tensors.push_back(entry.info);
    const auto open = [&](const std::filesystem::path&) { return std::make_unique<Memory>(tensors, header.metadata); };
    const qmill::Merge merge(open, model, {.paths = {"a", "b"}, .partial = is_lenient, .skip_mismatched = is_lenient}, known);
    bool merged = false;
    for (std::size_t i = 0; i < model.tensors().size(); ++i) {
      if (merge.files_of(i).empty()) continue;
      const qmill::TensorInfo& info = model.tensors()[i];
      at::Tensor values = buffers->allocate(info.shape, info.dtype);
      std::memset(values.mutable_data_ptr(), 0x3c, values.nbytes());
      const at::Tensor result = merge.apply(i, values, *buffers, tasks);
      if (result.scalar_type() != at::kFloat || result.sizes() != values.sizes()) std::abort();
      for (std::int64_t v = 0; v < result.numel(); ++v)
        if (!std::isfinite(result.const_data_ptr<float>()[v])) std::abort();
      merged = true;
    }
    if (!merged) std::abort();
  } catch (const qmill::Error&) {
  }
  return 0;
}
