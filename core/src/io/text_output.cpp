#include <qmill/core/text_output.h>

#include "io/output_file.h"
#include "io/destination.h"

namespace qmill {

namespace fs = std::filesystem;

void check_text_output(const fs::path& output, const std::vector<fs::path>& inputs, bool overwrite) {
  require_file_name(output);
  require_replaceable(output, inputs, overwrite);
}

void publish_text(const fs::path& output, std::string_view text, const std::vector<fs::path>& inputs, bool overwrite) {
  check_text_output(output, inputs, overwrite);
  OutputFile file(fs::weakly_canonical(fs::absolute(output)), text.size());
  file.write(0, std::as_bytes(std::span(text)));
  file.publish(false, overwrite);
}

}  // namespace qmill
