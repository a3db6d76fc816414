#include "host/search_path.h"

#include <fmt/format.h>
#include <boost/dll/runtime_symbol_info.hpp>
#include <boost/dll/shared_library.hpp>

#include <algorithm>
#include <cstdlib>

namespace qmill {
namespace {

namespace fs = std::filesystem;

#if defined(_WIN32)
constexpr char kListSeparator = ';';
#else
constexpr char kListSeparator = ':';
#endif

std::vector<fs::path> split_list(std::string_view list) {
  std::vector<fs::path> paths;
  while (!list.empty()) {
    const std::size_t end = list.find(kListSeparator);
    // An empty part would mean the current folder.
    if (end != 0) paths.emplace_back(list.substr(0, end));
    list.remove_prefix(end == std::string_view::npos ? list.size() : end + 1);
  }
  return paths;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : value;
}

fs::path user_folder() {
  if (const std::string data = environment("XDG_DATA_HOME"); !data.empty()) return fs::path(data) / "qmill" / "plugins";
  if (const std::string home = environment("HOME"); !home.empty()) return fs::path(home) / ".local" / "share" / "qmill" / "plugins";
  return {};
}

// lib/qmill/plugins beside the library that this function is part of.
fs::path installation_folder() { return fs::path(boost::dll::this_line_location().string()).parent_path() / "qmill" / "plugins"; }

}  // namespace

std::string unsafe_reason(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (error) return error.message();
  if ((status.permissions() & fs::perms::others_write) != fs::perms::none)
    return fmt::format("everybody may write to '{}'; remove that permission (chmod o-w) to use it", path.string());
  return {};
}

std::vector<SearchFolder> search_folders(const std::vector<fs::path>& plugin_dirs) {
  std::vector<SearchFolder> folders;
  const auto add = [&](const fs::path& folder, const char* origin) {
    if (folder.empty()) return;
    SearchFolder entry{fs::absolute(folder).lexically_normal(), origin, "", false};
    std::error_code ignored;
    entry.exists = fs::is_directory(entry.folder, ignored);
    if (entry.exists) entry.problem = unsafe_reason(entry.folder);
    folders.push_back(std::move(entry));
  };
  for (const fs::path& folder : plugin_dirs) add(folder, "--plugin-dir");
  for (const fs::path& folder : split_list(environment("QMILL_PLUGIN_PATH"))) add(folder, "QMILL_PLUGIN_PATH");
  add(user_folder(), "user");
  add(installation_folder(), "installation");
  return folders;
}

bool is_filter_pack(const fs::path& file) { return file.extension() == ".json"; }

std::vector<fs::path> plugin_files(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code unreadable;
  for (fs::directory_iterator entry(folder, unreadable), end; !unreadable && entry != end; entry.increment(unreadable))
    if (entry->path().extension() == boost::dll::shared_library::suffix().string() || is_filter_pack(entry->path()))
      files.push_back(entry->path());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace qmill
