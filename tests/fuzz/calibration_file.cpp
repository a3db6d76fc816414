#include "core/src/calibration/calibration_file.h"
#include "tests/support/temp_dir.h"

#include <qmill/error.h>

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>

namespace {

using qmill::InputKind;

// A recording of two layers and an empty one, with this text in its metadata.
std::string recording(std::string_view shared_inputs) {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "qmill_recording"}, {"shared_inputs", std::string(shared_inputs)}};
  header["a.input"] = {{"dtype", "F32"}, {"shape", {2, 2}}, {"data_offsets", {0, 16}}};
  header["b.channel_max"] = {{"dtype", "F32"}, {"shape", {2}}, {"data_offsets", {16, 24}}};
  header["e.input"] = {{"dtype", "F32"}, {"shape", {0, 2}}, {"data_offsets", {24, 24}}};
  const std::string text = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  std::string length;
  for (int i = 0; i < 8; ++i) length += static_cast<char>(text.size() >> (8 * i) & 0xff);
  return length + text + std::string(24, '\0');
}

void look_at(const qmill::CalibrationFile& file) {
  std::set<std::string> layers;
  for (const qmill::CalibrationEntry& entry : file.entries()) {
    if (!layers.insert(entry.layer).second) std::abort();
    for (const auto& [kind, tensor] : entry.tensors)
      if (file.source() == nullptr || tensor >= file.source()->tensors().size()) std::abort();
    try {
      file.check(entry, 2);
      for (const InputKind kind : {InputKind::channel_max, InputKind::channel_mean}) {
        if (!entry.has(kind)) continue;
        const at::Tensor values = file.vector(entry, kind);
        if (values.numel() != 2) std::abort();
        for (int i = 0; i < 2; ++i)
          if (!std::isfinite(values.const_data_ptr<float>()[i])) std::abort();
      }
    } catch (const qmill::Error&) {
    }
  }
}

}  // namespace

// The first byte says what the others are: the "shared_inputs" of a recording, or statistics as JSON.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const qmill::testing::TempDir folder;
  static const qmill::Host host({std::filesystem::path(QMILL_FUZZ_PLUGINS)});
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const bool is_json = data[0] % 2 == 1;
  const std::filesystem::path file = folder / (is_json ? "c.json" : "c.safetensors");
  std::ofstream(file, std::ios::binary) << (is_json ? std::string(text) : recording(text));
  try {
    look_at(qmill::CalibrationFile(host, file));
  } catch (const qmill::Error&) {
  }
  return 0;
}
