// The text tag of a plugin, as read from its file.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

struct PluginTag {
  std::string sdk, torch, abi, build, name;
  std::vector<std::pair<std::string, std::string>> offers;  // kind, name
};

// From the text between the magic word and the end. Throws Error(plugin) for a field that is missing or has no '='.
PluginTag parse_tag(std::string_view text);

// The tag of this program.
PluginTag own_tag();

// Why a plugin cannot run in this host, in one sentence that names both sides; empty: it can.
std::string mismatch(const PluginTag& plugin, const PluginTag& host);

// Reads the tag out of a file without running any of it. Throws Error(plugin) for a file that is no library of this machine, is cut
// short, or has no tag; Error(io).
PluginTag read_tag(const std::filesystem::path& file);

}  // namespace qmill
