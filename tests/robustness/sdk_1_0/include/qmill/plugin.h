// How a shared library becomes a plugin: one use of QMILL_PLUGIN in one source file.
//
//   QMILL_PLUGIN("acme", "1.2", QMILL_QUANTIZER("acme.nf4", acme::Nf4Quantizer))
//
// The macro places two constants in the library: the descriptor `qmill_plugin`, the only symbol that the host looks up, and
// a text tag that the host reads from the file *before* any code of the library runs. The tag decides whether it is loaded.
#pragma once

#include <qmill/loader.h>
#include <qmill/pattern_filter.h>
#include <qmill/quantizer.h>
#include <qmill/tag.h>

#include <cstddef>

namespace qmill {

enum class OfferKind : std::uint32_t { quantizer = 1, filter = 2, loader = 3, format = 4 };

// One thing that a plugin offers. create() makes a new object, called once, by the host, which owns the result.
struct Offer {
  OfferKind kind;
  std::uint32_t reserved;
  const char* name;
  void* (*create)();  // points to a Quantizer, ModelFilter, Loader or Format, by `kind`
};

// Constant data; grows only at its end, and `size` says how far it goes.
struct PluginDescriptor {
  std::uint32_t size;
  std::uint16_t sdk_major;
  std::uint16_t sdk_minor;
  const char* name;
  const char* version;
  const Offer* offers;
  std::uint64_t offer_count;
};
static_assert(offsetof(PluginDescriptor, name) == 8 && offsetof(PluginDescriptor, offer_count) == 32);

namespace detail {

template <class Interface, class Type>
void* create_object() {
  return static_cast<Interface*>(new Type());
}

template <FilterData (*data)()>
void* create_filter() {
  return static_cast<ModelFilter*>(new PatternFilter(data()));
}

template <std::size_t n>
consteval TagText plugin_tag(const char* name, const Offer (&offers)[n]) {
  TagText tag = compatibility_tag();
  tag.add(";name=", name);
  for (const Offer& offer : offers) {
    const char* kinds[] = {"", ";quantizer=", ";filter=", ";loader=", ";format="};
    tag.add(kinds[static_cast<std::uint32_t>(offer.kind)], offer.name);
  }
  tag.add(kTagEnd, "");
  return tag;
}

}  // namespace detail
}  // namespace qmill

#define QMILL_OFFER(kind, name, create) \
  ::qmill::Offer { kind, 0, name, create }
#define QMILL_QUANTIZER(name, Type) \
  QMILL_OFFER(::qmill::OfferKind::quantizer, name, (&::qmill::detail::create_object<::qmill::Quantizer, Type>))
#define QMILL_LOADER(name, Type) QMILL_OFFER(::qmill::OfferKind::loader, name, (&::qmill::detail::create_object<::qmill::Loader, Type>))
#define QMILL_FORMAT(name, Type) QMILL_OFFER(::qmill::OfferKind::format, name, (&::qmill::detail::create_object<::qmill::Format, Type>))
#define QMILL_FILTER_CLASS(name, Type) \
  QMILL_OFFER(::qmill::OfferKind::filter, name, (&::qmill::detail::create_object<::qmill::ModelFilter, Type>))
// `data` is a function that returns the FilterData.
#define QMILL_FILTER(name, data) QMILL_OFFER(::qmill::OfferKind::filter, name, (&::qmill::detail::create_filter<data>))

#define QMILL_PLUGIN(plugin_name, plugin_version, ...)                                                                       \
  namespace {                                                                                                                \
  constexpr ::qmill::Offer qmill_plugin_offers[] = {__VA_ARGS__};                                                            \
  }                                                                                                                          \
  extern "C" {                                                                                                               \
  extern const ::qmill::TagText qmill_plugin_tag;                                                                            \
  QMILL_TAG_SECTION const ::qmill::TagText qmill_plugin_tag = ::qmill::detail::plugin_tag(plugin_name, qmill_plugin_offers); \
  QMILL_EXPORT extern const ::qmill::PluginDescriptor qmill_plugin;                                                          \
  const ::qmill::PluginDescriptor qmill_plugin = {sizeof(::qmill::PluginDescriptor),                                         \
                                                  QMILL_SDK_MAJOR,                                                           \
                                                  QMILL_SDK_MINOR,                                                           \
                                                  plugin_name,                                                               \
                                                  plugin_version,                                                            \
                                                  qmill_plugin_offers,                                                       \
                                                  sizeof(qmill_plugin_offers) / sizeof(::qmill::Offer)};                     \
  }                                                                                                                          \
  static_assert(true)
