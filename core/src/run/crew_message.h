// What the ranks of a run tell each other, as text.
#pragma once

#include "run/journal.h"

#include <chrono>
#include <string>
#include <vector>

namespace qmill {

// Of one decision that a rank has finished.
struct FinishedDecision {
  std::size_t decision = 0;  // in the plan
  JournalEntry entry;
  std::string warning;  // of a tensor that was copied; empty: none
};

inline constexpr std::chrono::milliseconds kTick(20);  // between two looks at what has arrived
inline constexpr std::chrono::seconds kBeat(1);        // between two signs of life

struct CrewMessage {
  enum class Kind {
    hello,     // to the leader: this is my plan (text: its digest)
    begin,     // from the leader: all plans are the same, the files are there
    want,      // to the leader: I can take more
    work,      // from the leader: these decisions; none: nothing is left
    finished,  // to the leader: these are in the files
    done,      // to the leader: all that I had is in the files, and the inputs are what they were
    failed,    // to the leader: this ended my part
    end,       // from the leader: the run has ended (text: why; empty: the output is published)
    beat,      // I am alive
  };
  Kind kind = Kind::beat;
  std::string text;
  std::vector<std::size_t> decisions;
  std::vector<FinishedDecision> finished;
  std::optional<Error> error;
};

std::string crew_text(const CrewMessage& message);

// Throws Error(io) for other text.
CrewMessage parse_crew_message(const std::string& text);

}  // namespace qmill
