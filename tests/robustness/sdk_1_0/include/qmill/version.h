// Version of the plugin contract. A plugin runs in a host with the same major and an equal or newer minor number.
#pragma once

#define QMILL_SDK_MAJOR 1
#define QMILL_SDK_MINOR 0

// Version of the program; part of the metadata of every file that it writes.
#define QMILL_VERSION "0.1.0"
