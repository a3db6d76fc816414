#include <qmill/core/host.h>

#include "host/downloads.h"
#include "host/filter_pack.h"
#include "host/guard.h"
#include "host/guarded_source.h"
#include "host/library.h"
#include "host/search_path.h"
#include "host/tag.h"

#include <qmill/file_reader.h>
#include <qmill/names.h>
#include <qmill/round_to_nearest.h>

#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <mutex>
#include <optional>

namespace qmill {
namespace {

void examine_library(PluginCandidate& candidate) {
  const PluginTag tag = read_tag(candidate.file);
  candidate.name = tag.name;
  for (const auto& [kind, name] : tag.offers) candidate.offers.push_back({kind, name});
  candidate.reason = mismatch(tag, own_tag());
  for (const PluginOffer& offer : candidate.offers)
    if (candidate.reason.empty() && offer.kind == "filter" && is_reserved_filter_name(offer.name))
      candidate.reason = fmt::format("the filter name '{}' is reserved", offer.name);
}

FilterPack examine_pack(PluginCandidate& candidate) {
  const std::string text = read_filter_pack(candidate.file);
  FilterPack pack;
  try {
    pack = parse_filter_pack(text);
  } catch (const Error&) {
    for (const std::string& name : offered_filters(text)) candidate.offers.push_back({"filter", name});
    throw;
  }
  candidate.name = pack.name;
  for (const FilterData& filter : pack.filters) candidate.offers.push_back({"filter", filter.info.name});
  return pack;
}

// `pack`: what the file holds if it is one.
PluginCandidate examine(const std::filesystem::path& file, std::optional<FilterPack>& pack) {
  PluginCandidate candidate;
  candidate.name = file.stem().string();
  candidate.file = file;
  candidate.reason = unsafe_reason(file);
  if (candidate.reason.empty()) {
    try {
      if (is_filter_pack(file))
        pack = examine_pack(candidate);
      else
        examine_library(candidate);
    } catch (const Error& error) {
      candidate.reason = error.message();
    }
  }
  if (!candidate.reason.empty()) candidate.status = PluginCandidate::Status::refused;
  return candidate;
}

bool offers(const PluginCandidate& candidate, std::string_view kind, std::string_view name) {
  return std::any_of(candidate.offers.begin(), candidate.offers.end(),
                     [&](const PluginOffer& offer) { return offer.kind == kind && same_name(offer.name, name); });
}

// Takes the filters from a pack that an earlier candidate has; its others stay. True: none is left.
bool drop_shadowed_filters(PluginCandidate& pack, const PluginCandidate& earlier) {
  std::string dropped;
  std::erase_if(pack.offers, [&](const PluginOffer& offer) {
    if (!offers(earlier, offer.kind, offer.name)) return false;
    dropped += fmt::format("{}'{}'", dropped.empty() ? "" : ", ", offer.name);
    return true;
  });
  if (!dropped.empty())
    pack.reason += fmt::format("{}the filter {} comes from '{}', which is earlier in the search order", pack.reason.empty() ? "" : "; ",
                               dropped, earlier.file.string());
  return pack.offers.empty();
}

// Marks candidates whose name, or whose offer's name, an earlier one has.
void mark_shadowed(std::vector<PluginCandidate>& candidates) {
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    PluginCandidate& later = candidates[i];
    for (std::size_t j = 0; j < i && later.status == PluginCandidate::Status::compatible; ++j) {
      const PluginCandidate& earlier = candidates[j];
      if (earlier.status != PluginCandidate::Status::compatible) continue;
      std::string what;
      if (same_name(earlier.name, later.name)) {
        what = fmt::format("the plugin '{}'", later.name);
      } else if (is_filter_pack(later.file)) {
        if (drop_shadowed_filters(later, earlier)) later.status = PluginCandidate::Status::shadowed;
        continue;
      }
      for (const PluginOffer& offer : later.offers)
        if (what.empty() && offers(earlier, offer.kind, offer.name)) what = fmt::format("the {} '{}'", offer.kind, offer.name);
      if (what.empty()) continue;
      later.status = PluginCandidate::Status::shadowed;
      later.reason = fmt::format("{} comes from '{}', which is earlier in the search order", what, earlier.file.string());
    }
  }
}

template <class Interface>
bool answers_to(const Interface& object, std::string_view name) {
  if (same_name(object.info().name, name)) return true;
  if constexpr (requires { object.info().aliases; }) {
    const auto& aliases = object.info().aliases;
    return std::any_of(aliases.begin(), aliases.end(), [&](const std::string& alias) { return same_name(alias, name); });
  }
  return false;
}

template <class Interface>
std::vector<std::string> names_of(const std::vector<const Interface*>& objects) {
  std::vector<std::string> names;
  for (const Interface* object : objects) names.push_back(object->info().name);
  return names;
}

}  // namespace

bool is_reserved_filter_name(std::string_view name) {
  return same_name(name, kAutomaticFilter) || same_name(name, kStructuralFilter) || same_name(name, kNoFilter);
}

std::string plugin_status_name(PluginCandidate::Status status) {
  switch (status) {
    case PluginCandidate::Status::compatible:
      return "compatible";
    case PluginCandidate::Status::loaded:
      return "loaded";
    case PluginCandidate::Status::refused:
      return "refused";
    case PluginCandidate::Status::shadowed:
      return "shadowed";
  }
  return "refused";
}

struct Host::State {
  std::vector<SearchFolder> folders;
  std::vector<PluginCandidate> candidates;
  std::vector<std::optional<FilterPack>> packs;     // by index of `candidates`
  std::vector<std::optional<LoadedPlugin>> loaded;  // by index of `candidates`
  mutable std::mutex mutex;

  // Loads the candidates that offer something of this kind and returns all of it, in search order.
  template <class Interface>
  std::vector<const Interface*> all(std::string_view kind, std::vector<std::unique_ptr<const Interface>> LoadedPlugin::*member) {
    const std::lock_guard lock(mutex);
    std::vector<const Interface*> objects;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const bool has_kind = std::any_of(candidates[i].offers.begin(), candidates[i].offers.end(),
                                        [&](const PluginOffer& offer) { return offer.kind == kind; });
      if (has_kind) load(i);
      if (!loaded[i]) continue;
      for (const auto& object : (*loaded[i]).*member) objects.push_back(object.get());
    }
    return objects;
  }

  static LoadedPlugin load_pack(const PluginCandidate& candidate, const FilterPack& pack) {
    LoadedPlugin plugin;
    plugin.name = pack.name;
    plugin.version = pack.version;
    for (const FilterData& data : pack.filters)
      if (offers(candidate, "filter", data.info.name)) plugin.filters.push_back(std::make_unique<const PatternFilter>(data));
    return plugin;
  }

  void load(std::size_t index) {
    PluginCandidate& candidate = candidates[index];
    if (candidate.status != PluginCandidate::Status::compatible) return;
    try {
      loaded[index] = packs[index] ? load_pack(candidate, *packs[index]) : load_plugin(candidate.file);
      candidate.version = loaded[index]->version;
      candidate.status = PluginCandidate::Status::loaded;
    } catch (const std::exception& error) {
      candidate.status = PluginCandidate::Status::refused;
      candidate.reason = error.what();
    }
  }

  // For a name that nothing answers to: the reason of a refused plugin that offers it, else the nearest known name.
  [[noreturn]] void reject(std::string_view kind, std::string_view name, std::vector<std::string> known) const {
    const std::lock_guard lock(mutex);
    for (const PluginCandidate& candidate : candidates)
      if (candidate.status == PluginCandidate::Status::refused && offers(candidate, kind, name))
        throw Error(
            ErrorKind::plugin,
            fmt::format("the {} '{}' is offered by '{}', which was refused: {}", kind, name, candidate.file.string(), candidate.reason),
            is_filter_pack(candidate.file) ? "correct it (docs/filters.md); all candidates: qmill plugins list"
                                           : "rebuild it for this program (docs/plugin-guide.md); all candidates: qmill plugins list");
    throw Error(ErrorKind::usage, unknown_name_message(kind, name, std::move(known)));
  }
};

Host::Host(const std::vector<std::filesystem::path>& plugin_dirs) : state_(std::make_unique<State>()) {
  state_->folders = search_folders(plugin_dirs);
  for (const SearchFolder& folder : state_->folders) {
    if (!folder.exists || !folder.problem.empty()) continue;
    for (const std::filesystem::path& file : plugin_files(folder.folder)) {
      const auto is_this = [&](const PluginCandidate& known) { return known.file == file; };
      if (std::any_of(state_->candidates.begin(), state_->candidates.end(), is_this)) continue;  // a folder named twice
      state_->candidates.push_back(examine(file, state_->packs.emplace_back()));
    }
  }
  mark_shadowed(state_->candidates);
  state_->loaded.resize(state_->candidates.size());
}

Host::~Host() = default;

const std::vector<SearchFolder>& Host::folders() const { return state_->folders; }

std::vector<PluginCandidate> Host::candidates() const {
  const std::lock_guard lock(state_->mutex);
  return state_->candidates;
}

std::vector<const Quantizer*> Host::quantizers() const {
  std::vector<const Quantizer*> quantizers = state_->all("quantizer", &LoadedPlugin::quantizers);
  // Plain rounding is always there; a plugin may replace it.
  const std::string& name = qmill::plain_rounding().info().name;
  if (std::none_of(quantizers.begin(), quantizers.end(), [&](const Quantizer* found) { return same_name(found->info().name, name); }))
    quantizers.push_back(&qmill::plain_rounding());
  return quantizers;
}

std::vector<const ModelFilter*> Host::filters() const { return state_->all("filter", &LoadedPlugin::filters); }

std::vector<const StoredFormat*> Host::formats() const {
  std::vector<const StoredFormat*> formats(builtin_formats().begin(), builtin_formats().end());
  for (const StoredFormat* format : state_->all("format", &LoadedPlugin::formats)) formats.push_back(format);
  return formats;
}

std::vector<const LoraNames*> Host::lora_names() const {
  const std::lock_guard lock(state_->mutex);
  std::vector<const LoraNames*> names;
  for (std::size_t i = 0; i < state_->candidates.size(); ++i) {
    const PluginCandidate::Status status = state_->candidates[i].status;
    if (!state_->packs[i] || status == PluginCandidate::Status::refused || status == PluginCandidate::Status::shadowed) continue;
    for (const LoraNames& each : state_->packs[i]->lora_names) names.push_back(&each);
  }
  return names;
}

void Host::load_all() const {
  const std::lock_guard lock(state_->mutex);
  for (std::size_t i = 0; i < state_->candidates.size(); ++i) state_->load(i);
}

const Quantizer* Host::find_quantizer(std::string_view name) const {
  for (const Quantizer* quantizer : quantizers())
    if (answers_to(*quantizer, name)) return quantizer;
  return nullptr;
}

const StoredFormat* Host::find_format(std::string_view name) const {
  for (const StoredFormat* format : formats())
    if (answers_to(*format, name)) return format;
  return nullptr;
}

const Quantizer& Host::plain_rounding() const { return quantizer(qmill::plain_rounding().info().name); }

const Quantizer& Host::quantizer(std::string_view name) const {
  if (const Quantizer* found = find_quantizer(name)) return *found;
  state_->reject("quantizer", name, names_of(quantizers()));
}

const WritableFormat& Host::format(std::string_view name) const {
  std::vector<std::string> written;
  const StoredFormat* found = nullptr;
  for (const StoredFormat* format : formats()) {
    const WritableFormat* writable = as_writable(*format);
    if (writable != nullptr) written.push_back(format->info().name);
    if (found != nullptr || !answers_to(*format, name)) continue;
    if (writable != nullptr) return *writable;
    found = format;
  }
  if (found != nullptr)
    throw Error(ErrorKind::usage,
                fmt::format("format '{}' is read, not written (written are: {})", found->info().name, fmt::join(written, ", ")));
  state_->reject("format", name, std::move(written));
}

const ModelFilter& Host::filter(std::string_view name) const {
  for (const ModelFilter* filter : filters())
    if (answers_to(*filter, name)) return *filter;
  state_->reject("filter", name, names_of(filters()));
}

namespace {

// Loaders cannot tell a file that they may not read from one of another kind.
void require_readable(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status))
    throw Error(ErrorKind::io, status.type() == std::filesystem::file_type::none ? error.message() : "there is no such file or folder")
        .in(fmt::format("'{}'", path.string()));
  if (!std::filesystem::is_directory(status)) static_cast<void>(FileReader(path));
}

}  // namespace

std::unique_ptr<TensorSource> Host::open(const std::filesystem::path& path) const {
  require_readable(path);
  std::string known;
  for (const Loader* loader : state_->all("loader", &LoadedPlugin::loaders)) {
    const std::string& name = loader->info().name;
    if (guard(name, "probe", "", [&] { return loader->probe(path); })) {
      try {
        return guarded_source(guard(name, "open", "", [&] { return loader->open(path); }), name);
      } catch (const Error& refusal) {
        if (refusal.kind() == ErrorKind::input) refuse_failed_download(path, refusal.message());
        throw;
      }
    }
    known += fmt::format("{}{}", known.empty() ? "" : "; ", loader->info().summary);
  }
  refuse_failed_download(path);
  throw Error(ErrorKind::unsupported, "no loader reads this kind of file",
              fmt::format("readable are: {}", known.empty() ? "nothing, as no loader was found (qmill plugins list)" : known))
      .in(fmt::format("'{}'", path.string()));
}

}  // namespace qmill
