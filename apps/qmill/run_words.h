// One command line, from its words to an exit status.
#pragma once

#include <string>
#include <vector>

namespace qmill::app {

// Finds the command, runs it, and turns what went wrong into one line on stderr. Results are on stdout, perhaps not flushed. Throws nothing.
int run_words(std::vector<std::string> words);

}  // namespace qmill::app
