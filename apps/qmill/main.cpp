// The program: runs its words, and says so when the result did not reach its reader.
#include "commands.h"
#include "run_words.h"

#include <qmill/tag.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

int main(int argc, char** argv) {
  int status = qmill::app::run_words({argv + 1, argv + argc});
  // A full disk behind '>' is a failure.
  if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && status == 0) {
    std::fputs("qmill: error: cannot write the result to the standard output\n", stderr);
    status = qmill::app::kFailed;
  }
  // Nothing is left to do, and taking LibTorch down takes a third of the time that it takes to load. Sanitizers report at a full exit.
  if (std::string_view(QMILL_BUILD_KIND) == "plain") std::_Exit(status);
  return status;
}
