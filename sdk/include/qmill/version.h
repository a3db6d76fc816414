// Version of the plugin contract. Structs cross the border by value, so a plugin runs in a host with the very same major and minor number.
#pragma once

#define QMILL_SDK_MAJOR 2
#define QMILL_SDK_MINOR 0

// Version of the program; part of the metadata of every file that it writes.
#define QMILL_VERSION "0.1.0"
