// A plugin's library in this process, and the objects that it made.
#pragma once

#include <qmill/plugin.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace qmill {

struct LoadedPlugin {
  std::string name;
  std::string version;
  std::vector<std::unique_ptr<const Quantizer>> quantizers;
  std::vector<std::unique_ptr<const ModelFilter>> filters;
  std::vector<std::unique_ptr<const Loader>> loaders;
  std::vector<std::unique_ptr<const StoredFormat>> formats;  // guarded_format.h
};

// Loads a library whose tag was found compatible, for good, and creates everything that it offers. Throws Error(plugin).
LoadedPlugin load_plugin(const std::filesystem::path& file);

}  // namespace qmill
