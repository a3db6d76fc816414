// What readers ask of the tensors of one marked layer.
#pragma once

#include "verify/findings.h"
#include "readers/raw_markers.h"

namespace qmill {

// A layer as readers see it: its marker (the header's wins), and the tensors that are named after it.
struct MarkedLayer {
  std::string base;
  MarkerJson marker;                   // an object
  const TensorInfo* weight = nullptr;  // null: there is none
  LayerTensors::BySuffix others;
};

MarkedLayer marked_layer(const LayerTensors& tensors, const std::string& base, const MarkerJson& marker);

void check_layer(const MarkedLayer& layer, Findings& findings);

}  // namespace qmill
