// QMILL_API marks what crosses the boundary of the shared SDK library.
#pragma once

#if defined(_WIN32)
#if defined(QMILL_BUILDING_SDK)
#define QMILL_API __declspec(dllexport)
#else
#define QMILL_API __declspec(dllimport)
#endif
#define QMILL_EXPORT __declspec(dllexport)
#else
#define QMILL_API __attribute__((visibility("default")))
#define QMILL_EXPORT __attribute__((visibility("default")))
#endif
