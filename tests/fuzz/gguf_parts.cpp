#include "plugins/gguf/source.h"
#include "tests/support/temp_dir.h"

#include <qmill/error.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>

// The input is two parts of a model, with a line of dashes between them. Each is opened; what opens is read.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const qmill::testing::TempDir folder;
  static const std::filesystem::path files[] = {folder / "m-00001-of-00002.gguf", folder / "m-00002-of-00002.gguf"};
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  constexpr std::string_view kBetween = "\n----\n";
  const std::size_t end = std::min(input.find(kBetween), size);
  const std::string_view parts[] = {input.substr(0, end), input.substr(std::min(end + kBetween.size(), size))};
  for (const int i : {0, 1}) std::ofstream(files[i], std::ios::binary) << parts[i];
  for (const std::filesystem::path& file : files) {
    try {
      const auto source = gguf::open_model(file);
      std::set<std::string> names;
      for (std::size_t i = 0; i < source->tensors().size(); ++i) {
        const qmill::TensorInfo& tensor = source->tensors()[i];
        if (!names.insert(tensor.name).second) std::abort();
        std::vector<std::byte> values(static_cast<std::size_t>(tensor.bytes()));  // some 12 times the file at most
        source->read(i, values);
        std::vector<std::byte> half(values.size() / 2);
        source->read_part(i, values.size() - half.size(), half);
        if (!std::equal(half.begin(), half.end(), values.end() - static_cast<std::ptrdiff_t>(half.size()))) std::abort();
      }
    } catch (const qmill::Error&) {
    }
  }
  return 0;
}
