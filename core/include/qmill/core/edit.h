// Changes the keys of quantization markers. No weight, scale or other tensor changes.
#pragma once

#include <qmill/core/export.h>
#include <qmill/core/host.h>

#include <atomic>

namespace qmill {

struct MarkerEdit {
  std::filesystem::path input;
  std::filesystem::path output;
  bool overwrite = false;
  bool sync = true;  // to the disk, before the file gets its name
  std::vector<std::string> remove;
  std::string add;              // a JSON object, or 'key': value, 'key': value; empty: nothing
  std::string filter;           // regex, searched in the names of layers (without ".weight"); empty: all
  bool rebuild_header = false;  // the header's entry is made anew from all marker tensors; else only those layers change that it names
};

struct EditReport {
  std::size_t selected = 0;          // markers that the filter matches
  std::vector<std::string> changed;  // their layers
  std::vector<std::string> warnings;
  std::uint64_t bytes_written = 0;
};

// "{...}" or "'key': value, ..." as the text of a JSON object. Keys and texts stand in single or double quotes, a single word needs none;
// values are as in JSON. Throws Error(usage) that says where it goes wrong, and for a key that is there twice.
QMILL_CORE_API std::string parse_added_keys(std::string_view text);

// <stem>_edited.safetensors beside the input.
QMILL_CORE_API std::filesystem::path default_edited_output(const std::filesystem::path& input);

// Publishes edit.output, complete, or throws and leaves nothing there: marker tensor and header entry of a layer that changed are
// identical, every other tensor is copied byte for byte. A marker that is no JSON object is kept, with a warning.
// Throws Error(usage) for keys that would make a layer unreadable, a destination that may not be written, and a wrong pattern; Error(input)
// when no marker matches or nothing would change.
QMILL_CORE_API EditReport edit_markers(const Host& host, const MarkerEdit& edit, const std::atomic<bool>* cancel = nullptr);

}  // namespace qmill
