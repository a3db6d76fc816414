#include "lora/known_model.h"

#include <qmill/core/architecture.h>

#include <algorithm>

namespace qmill {
namespace {

// Text encoders in checkpoints, which no fingerprint tells apart: their own layouts fit one of these.
constexpr std::string_view kEncoders[] = {"clip_l", "clip_g", "clip_h"};

void add_names(const Host& host, std::string_view architecture, std::vector<const BlockNames*>& names) {
  for (const LoraNames* each : host.lora_names())
    if (std::find(each->architectures.begin(), each->architectures.end(), architecture) != each->architectures.end())
      for (const BlockNames& blocks : each->names)
        if (std::find(names.begin(), names.end(), &blocks) == names.end()) names.push_back(&blocks);
}

}  // namespace

KnownModel known_model(const Host& host, const TensorSource& model) {
  KnownModel known;
  for (const std::string_view encoder : kEncoders) add_names(host, encoder, known.encoder_names);
  const std::optional<Architecture> architecture = recognise(host, model);
  if (!architecture) {
    known.names = known.encoder_names;
    return known;
  }
  known.kind = architecture->filter->info().category == "text" ? ModelKind::text_encoder : ModelKind::diffusion;
  add_names(host, architecture->name, known.names);
  return known;
}

}  // namespace qmill
