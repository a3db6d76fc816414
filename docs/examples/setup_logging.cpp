// Chooses how much is logged to stderr.
#include <qmill/qmill.h>

using namespace qmill;

int main() {
  setup_logging("DEBUG");  // DEBUG, VERBOSE, NORMAL, MINIMAL
  convert_to_int8({.input_file = "model.safetensors", .output_file = "model_int8.safetensors"});
}
