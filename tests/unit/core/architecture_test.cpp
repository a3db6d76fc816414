// Which model a file holds, and what a plan makes of it. Files are holes.
#include "model/name_index.h"
#include "core_support.h"

#include <qmill/core/architecture.h>

#include <cstdlib>

namespace qmill {
namespace {

using testing::error_of;
using testing::expect_error;
using testing::Job;
using testing::write_sparse_model;

std::vector<TensorInfo> named(std::initializer_list<const char*> names, const std::string& prefix = "") {
  std::vector<TensorInfo> tensors;
  for (const char* name : names) tensors.push_back({prefix + name, DType::bf16, {64, 32}});
  return tensors;
}

TEST(NameIndex, AKeyIsAWholeNameOrLeadingSegments) {
  const std::vector<TensorInfo> tensors = named({"img_in.weight", "img_in-x.weight", "img_in_patch.weight", "norm", "a.b.c.weight", "z"});
  const NameIndex index(tensors, "");
  for (const char* key : {"img_in", "img_in.weight", "img_in-x", "norm", "a", "a.b", "a.b.c.weight", "z"})
    EXPECT_TRUE(index.has(key)) << key;
  for (const char* key : {"img", "img_", "img_in.w", "img_in_", "b", "b.c", "a.b.c.weight.d", "norm.weight", "", ".", "zz", "A"})
    EXPECT_FALSE(index.has(key)) << key;
}

TEST(NameIndex, AllNoneAndDimensionsDecideTogether) {
  const std::vector<TensorInfo> tensors = named({"a.weight", "b.weight"});
  const NameIndex index(tensors, "");
  const auto fits = [&](std::vector<std::string> all, std::vector<std::string> none, std::vector<TensorDimension> dimensions) {
    return index.fits({"x", 0, std::move(all), std::move(none), std::move(dimensions), false});
  };
  EXPECT_TRUE(fits({"a", "b"}, {}, {}));
  EXPECT_FALSE(fits({"a", "c"}, {}, {}));
  EXPECT_TRUE(fits({"a"}, {"c"}, {}));
  EXPECT_FALSE(fits({"a"}, {"c", "b"}, {}));
  EXPECT_FALSE(fits({}, {}, {}));  // would fit everything
  EXPECT_TRUE(fits({"a"}, {}, {{"a.weight", 0, 64}, {"a.weight", 1, 32}}));
  EXPECT_FALSE(fits({"a"}, {}, {{"a.weight", 0, 64}, {"a.weight", 1, 64}}));
  EXPECT_FALSE(fits({"a"}, {}, {{"a.weight", 2, 64}}));
  EXPECT_FALSE(fits({"a"}, {}, {{"a", 0, 64}}));  // not a whole name
  EXPECT_FALSE(fits({"a"}, {}, {{"c.weight", 0, 64}}));
}

TEST(NameIndex, ThePrefixWithTheMostTensorsComesFirstAndNamesWithoutItStay) {
  std::vector<TensorInfo> tensors = named({"a", "b", "c", "d", "e", "f"}, "model.diffusion_model.");
  const std::vector<TensorInfo> text = named({"g", "h"}, "cond_stage_model.");
  tensors.insert(tensors.end(), text.begin(), text.end());
  const std::vector<std::string_view> prefixes = model_prefixes(tensors);
  ASSERT_GE(prefixes.size(), 2u);
  EXPECT_EQ(prefixes[0], "model.diffusion_model.");
  EXPECT_EQ(prefixes[1], "");
  const NameIndex index(tensors, prefixes[0]);
  EXPECT_TRUE(index.has("a"));
  EXPECT_TRUE(index.has("cond_stage_model.g"));
  EXPECT_FALSE(index.has("model"));
}

TEST(NameIndex, FiveTensorsAreTooFewForAPrefixToComeFirst) {
  EXPECT_EQ(model_prefixes(named({"a", "b", "c", "d", "e"}, "net.")).front(), "");
  EXPECT_EQ(model_prefixes(named({"a", "b", "c", "d", "e", "f"}, "net.")).front(), "net.");
  EXPECT_EQ(model_prefixes({}), std::vector<std::string_view>{""});
}

// A host with one pack of these architectures beside those of the installation.
struct ArchitectureJob : Job {
  static Host with_pack(const std::filesystem::path& folder, const std::string& architectures) {
    std::filesystem::create_directory(folder);
    testing::write_bytes(folder / "test.json", R"({"filter_pack": 1, "name": "test", "version": "1", "filters": [
      {"name": "test.one", "category": "image", "summary": "s", "keep": ["head"], "architectures": [)" +
                                                   architectures + "]}]}");
    return Host({folder, QMILL_TEST_PLUGINS});
  }

  std::string recognised(const Host& a_host, const std::vector<TensorInfo>& tensors) {
    write_sparse_model(options.input, tensors);
    const auto file = a_host.open(options.input);
    const std::optional<Architecture> found = recognise(a_host, *file);
    return found ? found->name + " " + found->filter->info().name + " '" + found->prefix + "'" : "nothing";
  }
};

TEST(Recognise, TheLowestOrderThatFitsDecidesAcrossPacks) {
  ArchitectureJob job;
  const std::vector<TensorInfo> model = named({"zz_body.weight", "zz_head.weight", "patchify_proj.weight"});
  const std::string late = R"({"name": "late", "order": 2000000000, "all": ["zz_body"]})";
  const std::string early = R"({"name": "early", "order": 5, "all": ["zz_body", "zz_head"], "none": ["zz_tail"]})";
  EXPECT_EQ(job.recognised(job.with_pack(job.dir / "a", late + "," + early), model), "early test.one ''");
  EXPECT_EQ(job.recognised(job.with_pack(job.dir / "a", early + "," + late), model), "early test.one ''");
  EXPECT_EQ(job.recognised(job.with_pack(job.dir / "a", late), model), "late test.one ''");
  EXPECT_EQ(job.recognised(testing::host(), model), "nothing");
}

TEST(Recognise, ModelsLieBelowTheirPrefixesOrBare) {
  ArchitectureJob job;
  const Host a_host = job.with_pack(job.dir / "a", R"({"name": "it", "order": 5, "all": ["zz_body.0", "zz_head"]})");
  for (const char* prefix : {"", "model.diffusion_model.", "model.model.", "net.", "model.", "transformer.", "diffusion_model."})
    EXPECT_EQ(job.recognised(a_host, named({"zz_body.0.q.weight", "zz_body.0.k.weight", "zz_body.0.v.weight", "zz_body.0.o.weight",
                                            "zz_body.1.o.weight", "zz_head.weight"},
                                           prefix)),
              std::string("it test.one '") + prefix + "'");
  EXPECT_EQ(job.recognised(a_host, named({"zz_body.0.q.weight", "zz_head.weight"}, "other.")), "nothing");
  EXPECT_EQ(job.recognised(a_host, {}), "nothing");
}

struct FluxJob : ArchitectureJob {
  explicit FluxJob(const std::vector<const char*>& names = {"double_blocks.0.img_attn.norm.key_norm.weight", "img_in.weight",
                                                            "txt_in.weight", "double_blocks.0.img_attn.qkv.weight"}) {
    std::vector<TensorInfo> tensors;
    for (const char* name : names) tensors.push_back({name, DType::bf16, {64, 64}});
    write_sparse_model(options.input, tensors);
  }
};

const std::string kHint = "this is flux1; `filter flux` (or auto) would keep 3 layers that are quantized";

TEST(FilterChoice, AutoIsTheFilterOfTheModel) {
  FluxJob job;
  job.options.layers.filters = {"auto"};
  const Plan plan = job.plan();
  EXPECT_EQ(plan.architecture, "flux1");
  EXPECT_EQ(plan.filters, std::vector<std::string>{"flux"});
  EXPECT_EQ(testing::decision_of(plan, "img_in.weight").rule, "filter");
  EXPECT_EQ(testing::decision_of(plan, "double_blocks.0.img_attn.qkv.weight").rule, "primary");
  job.options.layers.filters = {"flux", "auto", "visual"};
  EXPECT_EQ(job.plan().filters, (std::vector<std::string>{"flux", "visual"}));
}

TEST(FilterChoice, WhatAutoBecameIsInTheFile) {
  FluxJob job;
  job.options.layers.filters = {"auto"};
  job.run();
  EXPECT_EQ(job.output().metadata.at("qmill.filters"), R"(["flux"])");
  job.options.layers.filters = {"flux"};
  job.options.run.overwrite = true;
  job.run();
  EXPECT_FALSE(job.output().metadata.contains("qmill.filters"));
}

TEST(FilterChoice, AutoForAnUnknownModelIsTheStructuralFilterAndAWarning) {
  FluxJob job({"first.weight", "body.0.q.weight", "body.1.q.weight", "last.weight"});
  job.options.layers.filters = {"auto"};
  const Plan plan = job.plan();
  EXPECT_EQ(plan.filters, std::vector<std::string>{"structural"});
  EXPECT_EQ(testing::decision_of(plan, "first.weight").rule, "filter");
  EXPECT_EQ(testing::decision_of(plan, "body.1.q.weight").rule, "primary");
  ASSERT_EQ(plan.warnings.size(), 1u);
  for (const char* part : {"not recognised", "`filter structural` keeps 2 layers", "the plan shows them", "`filter none`"})
    EXPECT_NE(plan.warnings.front().find(part), std::string::npos) << part;
  job.options.layers.filters = {"structural"};
  EXPECT_TRUE(job.plan().warnings.empty()) << "it was asked for";
}

TEST(FilterChoice, AutoKeepsNothingOfARunThatOnlyCasts) {
  FluxJob job;
  job.options.layers.filters = {"auto"};
  job.options.target.format = "fp16";
  EXPECT_TRUE(job.plan().filters.empty());
}

TEST(FilterChoice, AKnownModelWithoutAnyRuleGetsAHint) {
  FluxJob job;
  EXPECT_EQ(job.plan().warnings, std::vector<std::string>{kHint});
  job.options.layers.filters = {"distillation_small"};
  for (const std::string& warning : job.plan().warnings) EXPECT_NE(warning, kHint);
  job.options.layers.filters = {};
  job.options.layers.exclude = "txt_in";
  EXPECT_TRUE(job.plan().warnings.empty());
  job.options.layers.exclude = "";
  job.options.layers.config = parse_layer_config(R"({"txt_in": {"skip": true}})");
  EXPECT_TRUE(job.plan().warnings.empty());
}

TEST(FilterChoice, ChoicesThatProtectNothingLeaveTheHint) {
  FluxJob job;
  job.options.layers.custom = {"in\\.weight|norm", "fp16", {}, {}, false, false};
  EXPECT_EQ(job.plan().warnings, std::vector<std::string>{kHint});
  FluxJob unknown({"body.weight"});
  EXPECT_TRUE(unknown.plan().warnings.empty());
  EXPECT_EQ(unknown.plan().architecture, "");
}

struct Renamed {
  const char* architecture;
  std::vector<const char*> names;
};

const std::vector<Renamed>& renamed_layouts() {
  static const std::vector<Renamed> layouts = {
      {"aura_flow_diffusers", {"joint_transformer_blocks.0.attn.add_k_proj.weight"}},
      {"pixart_diffusers",
       {"adaln_single.emb.timestep_embedder.linear_1.bias", "pos_embed.proj.bias", "transformer_blocks.0.attn1.to_q.weight"}},
      {"z_image_diffusers", {"noise_refiner.0.attention.norm_k.weight", "layers.0.attention.to_q.weight"}},
      {"flux_diffusers", {"x_embedder.weight", "transformer_blocks.0.attn.to_q.weight"}},
      {"sd3_diffusers", {"transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.proj.weight"}},
      {"unet_diffusers", {"conv_in.weight", "down_blocks.0.attentions.0.proj_in.weight"}},
  };
  return layouts;
}

TEST(StableNames, LayoutsThatReadersRenameAreRefusedUnlessTheyAreForAnother) {
  for (const Renamed& layout : renamed_layouts()) {
    SCOPED_TRACE(layout.architecture);
    FluxJob job(layout.names);
    expect_error(ErrorKind::input, {"in.safetensors", layout.architecture, "renames", "`target any`"}, [&] { job.plan(); });
    job.options.target.storage.naming = Naming::legacy;
    EXPECT_EQ(job.plan().architecture, layout.architecture);
    job.options.target.storage.naming = Naming::comfy;
    job.options.target_reader = TargetReader::any;
    EXPECT_EQ(job.plan().architecture, layout.architecture);
    job.options.target_reader = TargetReader::comfyui;
    job.options.target.format = "fp16";  // has no markers that could stay behind
    EXPECT_EQ(job.plan().architecture, layout.architecture);
  }
}

TEST(StableNames, WhereNothingIsMarkedNothingIsRefused) {
  FluxJob job({"x_embedder.weight", "transformer_blocks.0.attn.to_q.weight"});
  job.options.layers.custom = {".", "fp16", {}, {}, false, false};
  EXPECT_EQ(job.plan().architecture, "flux_diffusers");
}

TEST(StableNames, AModelInItsOwnLayoutIsNotTakenForTheOther) {
  FluxJob z_image({"x_embedder.weight", "cap_embedder.1.weight", "noise_refiner.0.attention.k_norm.weight", "x_pad_token"});
  EXPECT_EQ(z_image.plan().architecture, "lumina2");  // 64 columns are nobody's; the layout is the family's
  FluxJob ltxv({"adaln_single.emb.timestep_embedder.linear_1.bias", "transformer_blocks.0.attn2.to_k.weight"});
  EXPECT_EQ(ltxv.plan().architecture, "ltxv");
}

}  // namespace
}  // namespace qmill
