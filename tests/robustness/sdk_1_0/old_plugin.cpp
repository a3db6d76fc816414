// A plugin of its time: built with the headers of SDK 1.0, which say other things of formats, layouts and quantizers than those of today.
#include <qmill/plugin.h>

#include <cstdlib>
#include <fstream>

namespace {

// Tells that code of this library ran.
struct Tracer {
  Tracer() {
    if (const char* file = std::getenv("QMILL_TEST_TRACE")) std::ofstream(file) << "code of the plugin ran";
  }
} tracer;

class OldRounding final : public qmill::Quantizer {
 public:
  const qmill::QuantizerInfo& info() const override {
    static const qmill::QuantizerInfo info = {"old.rounding", {}, "", {}, {}, false};
    return info;
  }
  qmill::StoredLayer quantize(const at::Tensor& weight, qmill::LayerContext& context) const override {
    const qmill::LayerTarget& target = context.target();
    return {target.format->encode({weight, weight}, context.weight(), target.layout), {}};
  }
};

}  // namespace

QMILL_PLUGIN("sdk_1_0", "1.0", QMILL_QUANTIZER("old.rounding", OldRounding));
