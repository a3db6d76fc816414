// QMILL_CORE_API marks what the shared library of core exports; the rest of core is hidden.
#pragma once

#if defined(_WIN32)
#if defined(QMILL_BUILDING_CORE)
#define QMILL_CORE_API __declspec(dllexport)
#else
#define QMILL_CORE_API __declspec(dllimport)
#endif
#else
#define QMILL_CORE_API __attribute__((visibility("default")))
#endif
