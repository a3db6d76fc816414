#include <qmill/core/verify.h>

#include "io/json_text.h"
#include "readers/legacy_markers.h"
#include "readers/model_parts.h"
#include "readers/raw_markers.h"
#include "readers/reader_formats.h"
#include "readers/text_encoders.h"
#include "verify/data_rules.h"
#include "verify/findings.h"
#include "verify/layer_rules.h"

#include <qmill/core/architecture.h>
#include <qmill/core/foreign_quantizers.h>
#include <qmill/error.h>
#include <qmill/file_reader.h>
#include <qmill/names.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <span>

namespace qmill {
namespace {

// Element types that ComfyUI's reader of safetensors does not know.
bool is_unknown_to_readers(DType type) {
  return type == DType::f8_e8m0 || type == DType::f4 || type == DType::f6_e2m3 || type == DType::f6_e3m2;
}

// By the numbers: "0.9.0" before "0.27.0".
std::vector<int> version_numbers(const std::string& version) {
  std::vector<int> numbers;
  int number = 0;
  for (const char letter : version + ".") {
    if (letter >= '0' && letter <= '9') {
      number = 10 * number + (letter - '0');
    } else {
      numbers.push_back(number);
      number = 0;
    }
  }
  return numbers;
}

// By the first bytes: the length of a header of JSON, and where that begins. The longest is what the reference implementation takes.
bool is_safetensors(const std::filesystem::path& path) {
  constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
  const FileReader file(path);
  std::array<unsigned char, 9> first{};
  if (file.size() < first.size()) return false;
  file.read(0, std::as_writable_bytes(std::span(first)));
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | first[static_cast<std::size_t>(i)];
  return length <= std::min(kMaxHeaderBytes, file.size() - 8) &&
         std::string_view("{ \t\r\n").find(static_cast<char>(first[8])) != std::string_view::npos;
}

void require_safetensors(const TensorSource& source) {
  for (const std::filesystem::path& file : source.files())
    if (!is_safetensors(file))
      throw Error(ErrorKind::unsupported,
                  fmt::format("'{}' is no safetensors file: the rules of readers are known for safetensors files only", file.string()),
                  "convert it (qmill -i FILE) and verify what is written");
}

class Verifier {
 public:
  Verifier(const Host& host, const TensorSource& source, const VerifyOptions& options, const std::atomic<bool>* cancel)
      : source_(source),
        options_(options),
        cancel_(cancel),
        markers_(raw_markers(source)),
        header_(header_entry(source)),
        tensors_(source),
        architecture_(recognise(host, source).value_or(Architecture{})),
        parts_(source.tensors(), architecture_.name, architecture_.prefix),
        legacy_(source.tensors(), architecture_.prefix) {}

  VerifyReport run() {
    check_container();
    check_header_entry();
    collect_layers();
    for (const MarkedLayer& layer : layers_) check_layer(layer, findings_);
    check_unmarked();
    check_parts();
    if (options_.read_data) check_data(source_, layers_, findings_, cancel_);
    return report();
  }

 private:
  void check_container() {
    if (source_.files().size() > 1)
      findings_.remark("several-files", "", fmt::format("the model is in {} files; ComfyUI loads one", source_.files().size()),
                       Effect::doubt);
    for (std::size_t i = 0; i < source_.tensors().size(); ++i) {
      const TensorInfo& tensor = source_.tensors()[i];
      if (is_unknown_to_readers(tensor.dtype))
        findings_.error("reader-dtype", tensor.name, fmt::format("its type {} is unknown to ComfyUI's reader", dtype_name(tensor.dtype)));
      const std::optional<Extent> extent = source_.extent(i);
      const auto element = static_cast<std::uint64_t>(std::max(1, dtype_bits(tensor.dtype) / 8));
      if (extent && tensor.bytes() != 0 && extent->offset % element != 0)
        findings_.remark("alignment", tensor.name,
                         fmt::format("it starts at byte {}, no multiple of its element's {} bytes: readers complain and copy it",
                                     extent->offset, element));
    }
  }

  void check_header_entry() {
    if (!header_.exists) return;
    if (!header_.problem.empty()) {
      findings_.error("header-entry", "", fmt::format("the header's '{}' is unusable: {}", kHeaderKey, header_.problem));
      return;
    }
    if (!header_.json.contains("format_version"))
      findings_.remark("header-entry", "", fmt::format("the header's '{}' has no 'format_version'", kHeaderKey));
  }

  void collect_layers() {
    std::set<std::string> in_header;
    for (const auto& [base, marker] : markers_) {
      check_marker_tensor(base, marker);
      const std::string entry = header_name(header_, base);
      if (!entry.empty()) in_header.insert(entry);
      const MarkerJson* effective = marker.json.is_object() ? &marker.json : nullptr;
      if (!entry.empty()) effective = check_entry(base, marker, header_.json["layers"][entry]);
      if (effective != nullptr) add_layer(base, *effective);
      marked_.insert(base);
    }
    if (!header_.is_usable()) return;
    for (const auto& [name, entry] : header_.json["layers"].items()) {
      if (in_header.contains(name)) continue;
      const std::string base = tensors_.layer_of(name);
      marked_.insert(base);
      if (!entry.is_object()) {
        findings_.error("header-entry", name, fmt::format("its entry in the header is {}, expected an object", excerpt(entry)));
        continue;
      }
      if (is_text_encoder_of_checkpoint(base))
        findings_.error("header-only", base,
                        "only the header marks it, and readers of whole checkpoints use the header for the diffusion model only");
      else if (!architecture_.prefix.empty())
        findings_.remark(
            "header-only", base,
            fmt::format("only the header marks it, as '{}': of ComfyUI's loaders of checkpoints and of diffusion models, one does "
                        "not find that, and stable-diffusion.cpp reads marker tensors",
                        name),
            Effect::stops, Effect::doubt);
      else
        findings_.remark("header-only", base, "only the header marks it: stable-diffusion.cpp reads marker tensors", Effect::stops);
      add_layer(base, entry);
    }
  }

  void check_marker_tensor(const std::string& base, const RawMarker& marker) {
    if (!marker.problem.empty()) findings_.error("marker-json", base + std::string(kMarkerSuffix), marker.problem);
    const std::int64_t bytes = source_.tensors()[marker.tensor].bytes();
    if (bytes > kMaxMarkerBytes)
      findings_.remark("marker-size", base + std::string(kMarkerSuffix),
                       fmt::format("it has {} bytes, stable-diffusion.cpp takes {}", bytes, kMaxMarkerBytes), Effect::stops);
  }

  // The header's entry wins over the tensor: what then applies, or null.
  const MarkerJson* check_entry(const std::string& base, const RawMarker& marker, const MarkerJson& entry) {
    if (!entry.is_object()) {
      findings_.error("header-entry", base, fmt::format("its entry in the header is {}, expected an object", excerpt(entry)));
      return nullptr;
    }
    // Compared as sets of keys: the order has no meaning.
    if (marker.json.is_object() && nlohmann::json(marker.json) != nlohmann::json(entry))
      findings_.error("marker-conflict", base,
                      fmt::format("its tensor says {}, the header says {}, and only some readers use the header", excerpt(marker.json),
                                  excerpt(entry)));
    return &entry;
  }

  static bool is_text_encoder_of_checkpoint(std::string_view base) {
    constexpr std::string_view kBeginnings[] = {"text_encoders.", "cond_stage_model.", "conditioner."};
    return std::any_of(std::begin(kBeginnings), std::end(kBeginnings),
                       [&](std::string_view beginning) { return base.starts_with(beginning); });
  }

  void add_layer(const std::string& base, const MarkerJson& marker) { layers_.push_back(marked_layer(tensors_, base, marker)); }

  // Weights that look quantized and that nothing marks: readers take their codes for values, and say nothing.
  void check_unmarked() {
    if (const std::optional<ForeignQuantizer> found = find_foreign_quantizer(source_.tensors())) {
      findings_.error("other-quantizer", found->tensor,
                      fmt::format("{} quantized the model: readers of these rules do not know its tensors", found->tool));
      return;
    }
    std::vector<std::string> plain_f8;
    for (const TensorInfo& tensor : source_.tensors()) {
      const std::string base = layer_base(tensor.name);
      if (tensor.shape.empty()) continue;
      if (tensor.name.ends_with(".bias") && tensor.dtype == DType::i8)
        findings_.error("quantized-module", tensor.name, "it is I8: biases must stay floating");
      if (base == tensor.name || marked_.contains(base)) continue;
      const std::string scale = scale_of(base);
      if (is_integer(tensor.dtype) || dtype_bits(tensor.dtype) < 8)
        findings_.error(
            "unmarked-codes", tensor.name,
            fmt::format("it is {} {} and nothing marks it{}: readers take the codes for values, which gives noise and no error",
                        dtype_name(tensor.dtype), tensor.shape_text(), scale.empty() ? "" : fmt::format(" ('{}' is not read)", scale)));
      const bool is_f8 = tensor.dtype == DType::f8_e4m3 || tensor.dtype == DType::f8_e5m2;
      const bool is_legacy = is_f8 && is_legacy_scale(scale) && legacy_.marks(base);
      if (is_f8 && !scale.empty() && !is_legacy)
        findings_.error("unmarked-codes", tensor.name,
                        is_marked_outside(scale)
                            ? fmt::format("it is {} and 'scaled_fp8' is not below '{}': where ComfyUI loads a checkpoint, '{}' is not read; "
                                          "where it loads a diffusion model alone, it is",
                                          dtype_name(tensor.dtype), architecture_.prefix, scale)
                            : fmt::format("it is {} and nothing marks it: '{}' is not read", dtype_name(tensor.dtype), scale));
      if (is_legacy) check_part(base);
      if (is_f8 && scale.empty()) plain_f8.push_back(tensor.name);
    }
    if (!plain_f8.empty())
      findings_.remark("plain-float8", plain_f8.front(),
                       fmt::format("{} weight{} float8 without a scale: readers take them as values, rounded to 8 bits", plain_f8.size(),
                                   plain_f8.size() == 1 ? " is" : "s are"));
  }

  std::string scale_of(const std::string& base) const {
    for (const char* suffix : {".weight_scale", ".scale_weight", ".weight_scale_inv"})
      if (tensors_.has_tensor(base + suffix)) return base + suffix;
    return {};
  }

  // Readers look at no marker of this kind if the header has an entry.
  bool is_legacy_scale(const std::string& scale) const { return scale.ends_with(kLegacyScale) && !header_.exists; }

  bool is_marked_outside(const std::string& scale) const {
    return is_legacy_scale(scale) && legacy_.is_outside() && scale.starts_with(architecture_.prefix);
  }

  void check_part(const std::string& base) {
    const ModelPart& part = parts_.of(base);
    if (part.loads_quantized == false)
      findings_.remark("model-part", base, fmt::format("it is in {}: {}", part.name, part.because), Effect::doubt, Effect::stops);
  }

  // Whether the parts of the model that have quantized layers are loaded with such; and, of all parts, whether that is known.
  void check_parts() {
    for (const MarkedLayer& layer : layers_) check_part(layer.base);
    if (const std::string tokenizer(tokenizer_tensor(architecture_.name)); !tokenizer.empty() && !tensors_.has_tensor(tokenizer))
      findings_.remark("tokenizer", tokenizer, "the file does not have it: ComfyUI reads the tokenizer of this text encoder from it");
    std::set<std::string> named;
    for (const TensorInfo& tensor : source_.tensors()) {
      const ModelPart& part = parts_.of(tensor.name);
      if (!part.loads_quantized && named.insert(part.name).second)
        findings_.remark("model-part", "", fmt::format("{}: {}", part.name, part.because), Effect::doubt, Effect::doubt);
    }
  }

  VerifyReport report() {
    VerifyReport report;
    report.findings = findings_.take();
    std::stable_sort(report.findings.begin(), report.findings.end(),
                     [](const Finding& a, const Finding& b) { return a.is_error() && !b.is_error(); });
    report.tensors = source_.tensors().size();
    report.layers = layers_.size();
    report.readers = {verdict("ComfyUI", report.findings, &Finding::comfyui),
                      verdict("stable-diffusion.cpp", report.findings, &Finding::sdcpp)};
    std::string since;
    bool is_int8_only = true;
    for (const MarkedLayer& layer : layers_) {
      const auto name = layer.marker.find("format");
      const ReaderFormat* format = name != layer.marker.end() && name->is_string() ? find_reader_format(name->get<std::string>()) : nullptr;
      if (format == nullptr) continue;
      is_int8_only = is_int8_only && format->name == "int8_tensorwise";
      since = std::max(since, std::string(format->since_in(module_kind(layer.base))),
                       [](const std::string& a, const std::string& b) { return version_numbers(a) < version_numbers(b); });
    }
    if (report.readers[0].loads != false) report.readers[0].since = since;
    if (report.readers[1].loads == true && !is_int8_only) {
      report.readers[1].loads = std::nullopt;
      report.readers[1].because = "its rules for formats other than int8 are not known here";
    }
    return report;
  }

  static ReaderVerdict verdict(std::string reader, const std::vector<Finding>& findings, Effect Finding::*effect) {
    ReaderVerdict verdict{std::move(reader), true, "", ""};
    for (const Effect worst : {Effect::stops, Effect::doubt})
      for (const Finding& finding : findings) {
        if (finding.*effect != worst) continue;
        verdict.loads = worst == Effect::stops ? std::optional(false) : std::nullopt;
        verdict.because =
            fmt::format("{}{}: {}", finding.rule, finding.tensor.empty() ? "" : fmt::format(" ({})", finding.tensor), finding.text);
        return verdict;
      }
    return verdict;
  }

  const TensorSource& source_;
  const VerifyOptions& options_;
  const std::atomic<bool>* cancel_;
  const std::map<std::string, RawMarker> markers_;
  const HeaderEntry header_;
  const LayerTensors tensors_;
  const Architecture architecture_;  // without a name: it is not recognised
  const ModelParts parts_;
  const LegacyMarkers legacy_;
  std::vector<MarkedLayer> layers_;
  std::set<std::string> marked_;  // layers that something marks, rightly or not
  Findings findings_;
};

}  // namespace

bool VerifyReport::loads() const {
  return std::none_of(findings.begin(), findings.end(), [](const Finding& finding) { return finding.is_error(); });
}

VerifyReport verify_model(const Host& host, const TensorSource& source, const VerifyOptions& options, const std::atomic<bool>* cancel) {
  require_safetensors(source);
  return Verifier(host, source, options, cancel).run();
}

}  // namespace qmill
