// Not bad, but it tells: code of it that runs leaves a file.
#include <qmill/plugin.h>

#include <cstdlib>
#include <fstream>

namespace {

struct Tracer {
  Tracer() {
    if (const char* file = std::getenv("QMILL_TEST_TRACE")) std::ofstream(file) << "code of the plugin ran";
  }
} tracer;

qmill::FilterData data() { return {{"tracer", "text", "keeps nothing"}, {}, {}, {}}; }

}  // namespace

QMILL_PLUGIN("tracer", "1.0", QMILL_FILTER("tracer", data));
