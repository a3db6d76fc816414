// The program: runs its words, and says so when the result did not reach its reader.
#include "commands.h"
#include "run_words.h"
#include "text.h"

#include <qmill/core/process.h>
#include <qmill/tag.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

int main(int argc, char** argv) {
  qmill::prepare_process();
  int status = qmill::app::run_words({argv + 1, argv + argc});
  // A full disk behind '>' is a failure.
  if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && status == 0) {
    const bool is_published = qmill::app::is_print_optional();
    std::fputs(is_published ? "qmill: warning: cannot write the summary to the standard output; the file is complete\n"
                            : "qmill: error: cannot write the result to the standard output\n",
               stderr);
    if (!is_published) status = qmill::app::kFailed;
  }
  // Nothing is left to do, and taking LibTorch down takes a third of the time that it takes to load. Sanitizers report at a full exit.
  if (std::string_view(QMILL_BUILD_KIND) == "plain") std::_Exit(status);
  return status;
}
