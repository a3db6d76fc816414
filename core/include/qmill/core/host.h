// The Host finds plugins, decides which of them may run, and gives access to what they offer.
#pragma once

#include <qmill/coded_format.h>
#include <qmill/core/export.h>
#include <qmill/core/lora_names.h>
#include <qmill/loader.h>
#include <qmill/model_filter.h>
#include <qmill/quantizer.h>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

// A folder that was searched, in order.
struct SearchFolder {
  std::filesystem::path folder;
  std::string origin;   // "--plugin-dir", "QMILL_PLUGIN_PATH", "user", "installation"
  std::string problem;  // why nothing in it is used; empty: it is used, or it does not exist
  bool exists = false;
};

struct PluginOffer {
  std::string kind;  // quantizer, filter, loader, format
  std::string name;
};

// A file in a searched folder that is, or might be, a plugin: a shared library, or filters as JSON (docs/filters.md).
struct PluginCandidate {
  enum class Status {
    compatible,  // may be loaded; none of its code has run. `reason` names what of a pack of filters is shadowed
    loaded,
    refused,   // `reason` says why
    shadowed,  // compatible, but something earlier in the search order has its name; `reason` says what
  };
  std::string name;  // from the tag, else the file's
  std::filesystem::path file;
  std::vector<PluginOffer> offers;
  Status status = Status::compatible;
  std::string reason;
  std::string version;  // known once loaded
};

// Filter names with a meaning of their own, which no plugin may have.
inline constexpr std::string_view kAutomaticFilter = "auto";         // that of the model, or the structural one if nothing recognises it
inline constexpr std::string_view kStructuralFilter = "structural";  // by words in names, and by place: for models that are not known
inline constexpr std::string_view kNoFilter = "none";

QMILL_CORE_API bool is_reserved_filter_name(std::string_view name);

QMILL_CORE_API std::string plugin_status_name(PluginCandidate::Status status);

// Reads the tags of all candidates when it is made; loads a library only when something that it offers is asked for, and
// never unloads one. Names: '-' and '_' are the same. Thread-safe, but for the objects handed out, which say so themselves.
class QMILL_CORE_API Host {
 public:
  // `plugin_dirs` come first in the search order.
  explicit Host(const std::vector<std::filesystem::path>& plugin_dirs = {});
  ~Host();

  const std::vector<SearchFolder>& folders() const;
  std::vector<PluginCandidate> candidates() const;  // as they stand now

  // By name or alias. Throws Error(usage) with the nearest known name, or Error(plugin) when the only plugin that offers
  // it was refused, with that reason.
  const Quantizer& quantizer(std::string_view name) const;
  const ModelFilter& filter(std::string_view name) const;
  const WritableFormat& format(std::string_view name) const;  // Error(usage), too, for one that is only read

  // Rounding to nearest, by which others are measured: the SDK's, unless a plugin offers one of the same name.
  const Quantizer& plain_rounding() const;

  const Quantizer* find_quantizer(std::string_view name) const;  // null instead of Error(usage)
  const StoredFormat* find_format(std::string_view name) const;

  // Everything that can be loaded; what cannot is skipped, and candidates() says why.
  std::vector<const Quantizer*> quantizers() const;
  std::vector<const ModelFilter*> filters() const;
  std::vector<const StoredFormat*> formats() const;
  // Of all packs of filters, in search order; they live as long as the host.
  std::vector<const LoraNames*> lora_names() const;
  void load_all() const;  // so that candidates() is final

  // Throws Error(io, input) from the loader, Error(unsupported) when none takes the path.
  std::unique_ptr<TensorSource> open(const std::filesystem::path& path) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qmill
