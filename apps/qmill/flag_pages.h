// What help pages and completion know of a flag of convert beyond its line: its topics, and its values where they are few.
#pragma once

#include "arguments.h"

#include <qmill/core/host.h>

namespace qmill::app {

// Fills in topics and choices that are not there yet, from the flags' names, their groups and what the host offers.
void add_pages(std::vector<Flag>& flags, const Host& host);

}  // namespace qmill::app
