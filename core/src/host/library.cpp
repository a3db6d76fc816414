#include "host/library.h"

#include "host/guard.h"
#include "host/guarded_format.h"

#include <boost/dll/shared_library.hpp>

#include <mutex>

namespace qmill {
namespace {

// Kept until the process ends: objects, exceptions and thread-local data of a library may outlive any use of it. [any-thread]
void keep(const boost::dll::shared_library& library) {
  static auto* mutex = new std::mutex();
  static auto* libraries = new std::vector<boost::dll::shared_library>();
  const std::lock_guard lock(*mutex);
  libraries->push_back(library);
}

boost::dll::shared_library open_library(const std::filesystem::path& file) {
  namespace dll = boost::dll;
  try {
    return dll::shared_library(dll::fs::path(file.string()), dll::load_mode::rtld_now | dll::load_mode::rtld_local);
  } catch (const std::exception& error) {
    throw Error(ErrorKind::plugin, fmt::format("the system cannot load it: {}", error.what()));
  }
}

const PluginDescriptor& descriptor_of(const boost::dll::shared_library& library) {
  constexpr const char* kSymbol = "qmill_plugin";
  if (!library.has(kSymbol)) throw Error(ErrorKind::plugin, fmt::format("it does not export '{}'", kSymbol));
  const auto& descriptor = library.get<const PluginDescriptor>(kSymbol);
  if (descriptor.size < sizeof(PluginDescriptor) || descriptor.sdk_major != QMILL_SDK_MAJOR || descriptor.sdk_minor != QMILL_SDK_MINOR ||
      descriptor.name == nullptr)
    throw Error(ErrorKind::plugin, "its descriptor contradicts its tag");
  return descriptor;
}

template <class Interface>
void create(const Offer& offer, const std::string& plugin, std::vector<std::unique_ptr<const Interface>>& objects) {
  void* made = guard(plugin, fmt::format("creating '{}'", offer.name), "", [&] { return offer.create(); });
  if (made == nullptr) throw Error(ErrorKind::plugin, fmt::format("it made nothing for '{}'", offer.name));
  objects.emplace_back(static_cast<const Interface*>(made));
  const std::string name = guard(plugin, "info", "", [&] { return objects.back()->info().name; });
  if (name != offer.name) throw Error(ErrorKind::plugin, fmt::format("it offers '{}' but made '{}'", offer.name, name));
}

}  // namespace

LoadedPlugin load_plugin(const std::filesystem::path& file) {
  const boost::dll::shared_library library = open_library(file);
  keep(library);
  const PluginDescriptor& descriptor = descriptor_of(library);
  LoadedPlugin plugin;
  plugin.name = descriptor.name;
  plugin.version = descriptor.version;
  for (const Offer& offer : std::span(descriptor.offers, descriptor.offer_count)) {
    switch (offer.kind) {
      case OfferKind::quantizer:
        create(offer, plugin.name, plugin.quantizers);
        break;
      case OfferKind::filter:
        create(offer, plugin.name, plugin.filters);
        break;
      case OfferKind::loader:
        create(offer, plugin.name, plugin.loaders);
        break;
      case OfferKind::format:
        create(offer, plugin.name, plugin.formats);
        plugin.formats.back() = guard(plugin.name, fmt::format("format '{}'", offer.name), "",
                                      [&] { return guarded_format(std::move(plugin.formats.back())); });
        break;
    }
  }
  return plugin;
}

}  // namespace qmill
