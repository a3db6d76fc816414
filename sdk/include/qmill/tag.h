// The text tag in a plugin's file: what it was built for and what it offers, readable without running it.
//
//   <kTagStart>sdk=2.0;torch=2.13;abi=libstdc++-cxx11;build=plain;name=rtn;quantizer=rtn;end
#pragma once

#include <qmill/version.h>

#if __has_include(<torch/headeronly/version.h>)
#include <torch/headeronly/version.h>
#else
#include <torch/version.h>
#endif

#include <cstddef>
#include <initializer_list>
#include <version>

// Builds that cannot be mixed in one process. Optimization and assertions do not matter: they change no layout.
#if defined(__SANITIZE_ADDRESS__)
#define QMILL_BUILD_KIND "asan"
#elif defined(__SANITIZE_THREAD__)
#define QMILL_BUILD_KIND "tsan"
#elif defined(__has_feature) && defined(__clang__)  // clang says it another way
#if __has_feature(address_sanitizer)
#define QMILL_BUILD_KIND "asan"
#elif __has_feature(thread_sanitizer)
#define QMILL_BUILD_KIND "tsan"
#endif
#endif
#if defined(QMILL_BUILD_KIND)
#elif defined(_GLIBCXX_DEBUG)
#define QMILL_BUILD_KIND "debug-stl"
#elif defined(_MSC_VER) && defined(_DEBUG)
#define QMILL_BUILD_KIND "debug-crt"
#else
#define QMILL_BUILD_KIND "plain"
#endif

#if defined(_GLIBCXX_RELEASE)
#if _GLIBCXX_USE_CXX11_ABI
#define QMILL_ABI "libstdc++-cxx11"
#else
#define QMILL_ABI "libstdc++-old"
#endif
#elif defined(_LIBCPP_VERSION)
#define QMILL_ABI "libc++"
#elif defined(_MSC_VER)
#define QMILL_ABI "msvc"
#else
#error "qmill: unknown C++ standard library"
#endif

#if defined(__APPLE__)
#define QMILL_TAG_SECTION __attribute__((section("__DATA,qmill_tag"), used))
#elif defined(_MSC_VER)
#define QMILL_TAG_SECTION __declspec(dllexport)
#elif defined(__has_attribute) && __has_attribute(retain)
#define QMILL_TAG_SECTION __attribute__((section(".qmill_tag"), used, retain))
#else
#define QMILL_TAG_SECTION __attribute__((section(".qmill_tag"), used))
#endif

namespace qmill {

inline constexpr std::size_t kTagBytes = 1024;
inline constexpr char kTagEnd[] = ";end";

// Text of bounded length, built by the compiler; too long a tag does not compile.
struct TagText {
  char text[kTagBytes] = {};
  std::size_t length = 0;

  constexpr void add(const char* a, const char* b) {
    for (const char* part : {a, b})
      for (; *part != '\0'; ++part) text[length++] = *part;
  }
  constexpr void add(const char* key, int number) {
    add(key, "");
    char digits[10] = {};
    int count = 0;
    do digits[count++] = static_cast<char>('0' + number % 10);
    while ((number /= 10) != 0);
    while (count > 0) text[length++] = digits[--count];
  }
};

// What the translation unit that includes this was built for. The host compares a plugin's with its own.
constexpr TagText compatibility_tag() {
  TagText tag;
  tag.add("qmill-plugin-tag", "/1:");
  tag.add("sdk=", QMILL_SDK_MAJOR);
  tag.add(".", QMILL_SDK_MINOR);
  tag.add(";torch=", TORCH_VERSION_MAJOR);
  tag.add(".", TORCH_VERSION_MINOR);
  tag.add(";abi=", QMILL_ABI);
  tag.add(";build=", QMILL_BUILD_KIND);
  return tag;
}

}  // namespace qmill
