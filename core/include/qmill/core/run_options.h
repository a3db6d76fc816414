// How a conversion runs. None of this changes a byte of the output.
#pragma once

#include <qmill/core/memory.h>

#include <string>

namespace qmill {

struct RunOptions {
  int threads = 0;  // 0: as many as there are processors
  MemoryOptions memory;
  std::string device = "auto";  // auto, cpu, or cuda[:N], of which this build has none
  bool overwrite = false;       // replace the output if it exists
  bool measures = true;         // the quality of each layer, on the bytes as stored
  bool sync = true;             // to the disk, before the file gets its name
  bool resume = false;          // goes on with what a run that ended early has left
  bool keep_part = true;        // leaves what is finished when it ends early, for a run with `resume`
};

}  // namespace qmill
