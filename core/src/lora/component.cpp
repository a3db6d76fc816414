#include "lora/component.h"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace qmill {
namespace {

constexpr Component kAny = {};
constexpr Component kDiffusion = {ModelKind::diffusion, 0};
constexpr Component kOther = {ModelKind::other, 0};
constexpr Component text_encoder(int number) { return {ModelKind::text_encoder, number}; }

using Prefix = std::pair<std::string_view, Component>;

// Before names in which every dot is an underscore: kohya, LyCORIS, OneTrainer.
constexpr std::array<Prefix, 10> kUnderscoredPrefixes = {{{"lora_unet_", kDiffusion},
                                                          {"lora_prior_unet_", kDiffusion},
                                                          {"lora_transformer_", kDiffusion},
                                                          {"lora_te1_", text_encoder(1)},
                                                          {"lora_te2_", text_encoder(2)},
                                                          {"lora_te3_", text_encoder(3)},
                                                          {"lora_te_", text_encoder(0)},
                                                          {"lora_prior_te_", text_encoder(0)},
                                                          {"lora_text_encoder_", text_encoder(0)},
                                                          {"lycoris_", kAny}}};

// "text_model." and "model." say nothing; "transformer." is special, see below.
constexpr std::array<Prefix, 21> kDottedPrefixes = {{{"model.diffusion_model.", kDiffusion},
                                                     {"diffusion_model.", kDiffusion},
                                                     {"unet.", kDiffusion},
                                                     {"prior.", kDiffusion},
                                                     {"lora_unet.", kDiffusion},
                                                     {"lora_transformer.", kDiffusion},
                                                     {"text_encoder_2.", text_encoder(2)},
                                                     {"text_encoder_3.", text_encoder(3)},
                                                     {"text_encoder.", text_encoder(1)},
                                                     {"text_encoders.", text_encoder(0)},
                                                     {"te1.", text_encoder(1)},
                                                     {"te2.", text_encoder(2)},
                                                     {"te3.", text_encoder(3)},
                                                     {"te.", text_encoder(0)},
                                                     {"lora_te1.", text_encoder(1)},
                                                     {"lora_te2.", text_encoder(2)},
                                                     {"lora_te3.", text_encoder(3)},
                                                     {"lora_te.", text_encoder(0)},
                                                     {"base_model.model.", kAny},
                                                     {"_orig_mod.", kAny},
                                                     {"module.", kAny}}};

constexpr std::array<Prefix, 4> kEncodersByName = {
    {{"clip_l.", text_encoder(1)}, {"clip_g.", text_encoder(2)}, {"clip_h.", text_encoder(1)}, {"t5xxl.", text_encoder(3)}}};

// Of the parts of a checkpoint. No LoRA is about those that are neither diffusion model nor text encoder, unless it has their whole names.
constexpr std::array<Prefix, 14> kPartPrefixes = {{{"model.diffusion_model.", kDiffusion},
                                                   {"conditioner.embedders.0.transformer.", text_encoder(1)},
                                                   {"conditioner.embedders.0.model.", text_encoder(1)},
                                                   {"conditioner.embedders.1.transformer.", text_encoder(2)},
                                                   {"conditioner.embedders.1.model.", text_encoder(2)},
                                                   {"cond_stage_model.transformer.", text_encoder(1)},
                                                   {"cond_stage_model.model.", text_encoder(1)},
                                                   {"first_stage_model.", kOther},
                                                   {"vae.", kOther},
                                                   {"audio_vae.", kOther},
                                                   {"vocoder.", kOther},
                                                   {"pretransform.", kOther},
                                                   {"control_model.", kOther},
                                                   {"model_ema.", kOther}}};

constexpr std::string_view kTransformer = "transformer.";

template <std::size_t N>
const Prefix* prefix_of(std::string_view name, const std::array<Prefix, N>& prefixes) {
  for (const Prefix& prefix : prefixes)
    if (name.size() > prefix.first.size() && name.starts_with(prefix.first)) return &prefix;
  return nullptr;
}

// What follows "text_encoders.": "clip_l.transformer.text_model...", or the names of the only encoder.
void name_encoder(std::string_view& rest, Component& component) {
  if (const Prefix* encoder = prefix_of(rest, kEncodersByName)) {
    component = encoder->second;
    rest.remove_prefix(encoder->first.size());
  } else if (const std::size_t dot = rest.find('.'); dot != std::string_view::npos && rest.substr(dot + 1).starts_with(kTransformer)) {
    rest.remove_prefix(dot + 1);
  }
  if (rest.starts_with(kTransformer)) rest.remove_prefix(kTransformer.size());
}

}  // namespace

std::string component_text(const Component& component) {
  switch (component.kind) {
    case ModelKind::diffusion:
      return "a diffusion model";
    case ModelKind::text_encoder:
      return component.number == 0 ? "a text encoder" : fmt::format("text encoder {}", component.number);
    case ModelKind::unknown:
    case ModelKind::other:
      break;
  }
  return "another model";
}

LoraAddress lora_address(std::string_view name) {
  LoraAddress address{kAny, name, false, false};
  if (const Prefix* prefix = prefix_of(name, kUnderscoredPrefixes)) {
    address.component = prefix->second;
    address.rest.remove_prefix(prefix->first.size());
    address.is_underscored = true;
    // Some files have two underscores after "lora_unet".
    while (address.rest.size() > 1 && address.rest.front() == '_') address.rest.remove_prefix(1);
    return address;
  }
  // Wrappers may stand before the component, and after it.
  while (const Prefix* prefix = prefix_of(address.rest, kDottedPrefixes)) {
    address.rest.remove_prefix(prefix->first.size());
    if (prefix->second.kind == ModelKind::unknown || address.component.kind != ModelKind::unknown) continue;
    address.component = prefix->second;
    if (prefix->first == "text_encoders.") name_encoder(address.rest, address.component);
  }
  if (address.component.kind == ModelKind::unknown && address.rest.size() > kTransformer.size() && address.rest.starts_with(kTransformer)) {
    address.component = kDiffusion;
    address.may_be_any_model = true;
    address.rest.remove_prefix(kTransformer.size());
  }
  return address;
}

LayerAddress layer_address(std::string_view base) {
  if (const Prefix* prefix = prefix_of(base, kPartPrefixes))
    return {prefix->second, base.substr(0, prefix->first.size()), base.substr(prefix->first.size())};
  if (constexpr std::string_view encoders = "text_encoders."; base.starts_with(encoders)) {
    std::string_view rest = base.substr(encoders.size());
    Component component = text_encoder(0);
    name_encoder(rest, component);
    return {component, base.substr(0, base.size() - rest.size()), rest};
  }
  return {kAny, {}, base};
}

std::string_view without_prefixes(std::string_view name) {
  // Longer ones first: "model.diffusion_model." is one prefix, not two.
  constexpr std::array<std::string_view, 13> kPrefixes = {"base_model.model.",
                                                          "model.diffusion_model.",
                                                          "diffusion_model.",
                                                          "text_encoder_2.",
                                                          "text_encoder.",
                                                          "text_encoders.",
                                                          "text_model.",
                                                          "transformer.",
                                                          "_orig_mod.",
                                                          "module.",
                                                          "model.",
                                                          "unet.",
                                                          "net."};
  for (bool again = true; again;) {
    again = false;
    for (const std::string_view prefix : kPrefixes)
      if (name.size() > prefix.size() && name.starts_with(prefix)) {
        name.remove_prefix(prefix.size());
        again = true;
        break;
      }
  }
  return name;
}

}  // namespace qmill
