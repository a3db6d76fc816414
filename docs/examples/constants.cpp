// The constants, and the model filters that are installed.
#include <qmill/qmill.h>

#include <cstdio>

using namespace qmill;

int main() {
  static_assert(TARGET_INT8_DTYPE == at::kChar);
  static_assert(COMPUTE_DTYPE == at::kFloat);
  static_assert(SCALE_DTYPE == at::kFloat);
  static_assert(INT8_SYMMETRIC_MAX == 127);
  for (const std::string& name : MODEL_FILTERS.names()) std::printf("filter %s\n", name.c_str());
}
