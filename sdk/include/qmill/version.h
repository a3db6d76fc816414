// Version of the plugin contract. Structs are passed by value, so a plugin runs only in a host with the same major and minor number.
#pragma once

#define QMILL_SDK_MAJOR 2
#define QMILL_SDK_MINOR 1

// Version of the program; part of the metadata of every file that it writes.
#define QMILL_VERSION "0.1.0"
