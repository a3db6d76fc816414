// One command line, from its words to an exit status.
#pragma once

#include <string>
#include <vector>

namespace qmill::app {

struct Ending {
  int status = 0;     // of the process
  std::string error;  // one line; empty: nothing went wrong
};

// Finds the command and runs it. Results are on stdout, perhaps not flushed. Throws nothing.
Ending ending_of(std::vector<std::string> words);

// The same; what went wrong is said on stderr.
int run_words(std::vector<std::string> words);

}  // namespace qmill::app
