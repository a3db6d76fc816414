#include "core/src/run/journal.h"
#include "tests/support/temp_dir.h"

#include <qmill/error.h>

#include <cstdlib>
#include <fstream>

// The input is what follows the first line of a journal; the first byte says whether that line is there. What is read, and a line that is
// added to it, is read again.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const qmill::testing::TempDir folder;
  static const std::filesystem::path file = folder / "m.qmill-journal";
  static const std::string identity = "{\"qmill_journal\":1,\"plan\":\"0\",\"files\":[{\"file\":\"m\",\"bytes\":1,\"modified\":2}]}\n";
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::ofstream(file, std::ios::binary) << (data[0] % 8 != 0 ? identity : std::string()) << text;
  try {
    const bool publishes = qmill::was_publishing(file);
    qmill::JournalEntries found;
    {
      qmill::Journal journal(file, identity, true);
      found = journal.found();
      if (journal.count() != found.size()) std::abort();
      if (journal.was_publishing() && !publishes && text.ends_with('\n')) std::abort();
      journal.add("added", {{{"added.tensor", "1"}}, std::nullopt});
      journal.flush(false);
      journal.keep();
    }
    const qmill::Journal again(file, identity, true);
    found["added"] = {{{"added.tensor", "1"}}, std::nullopt};
    if (again.found().size() != found.size() || again.was_publishing()) std::abort();
    for (const auto& [name, entry] : found) {
      const auto same = again.found().find(name);
      if (same == again.found().end() || same->second.hashes != entry.hashes || same->second.report.has_value() != entry.report.has_value())
        std::abort();
    }
  } catch (const qmill::Error&) {
  }
  return 0;
}
