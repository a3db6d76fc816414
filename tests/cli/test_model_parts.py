"""Which parts of a model a reader loads quantized: what verify says of files, and what convert keeps."""

import functools
import json
import struct
import unittest

import keys
import torch
from support import TempFolder, qmill as run, qmill_json as run_json, read

# The command's own default filter is one of the things that are tested here.
qmill = functools.partial(run, choose=list)
qmill_json = functools.partial(run_json, run=qmill)

YES, NO, UNKNOWN = True, False, None

# The numbers of bytes of an element.
SIZES = {"BF16": 2, "F16": 2, "F32": 4, "U8": 1, "I8": 1, "F8_E4M3": 1}


def write_header(path, tensors):
    """name -> (dtype, shape, bytes or None): a file with these tensors and holes for those without bytes."""
    header, end, filled = {}, 0, []
    for name, (dtype, shape, data) in tensors.items():
        size = SIZES[dtype]
        for n in shape:
            size *= n
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        if data is not None:
            filled.append((end, data))
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for offset, data in filled:
            file.seek(8 + len(text) + offset)
            file.write(data)
        file.truncate(8 + len(text) + end)


def floats(model, prefix="", replace=()):
    """The tensors of a real model, as floats; those that have another type keep it."""
    return {prefix + name: (keys.TYPES[dtype][0], shape, None) for name, (dtype, shape) in keys.tensors(model, replace).items()}


def marked(tensors, layer, form="int8_tensorwise"):
    """The same with one layer as a reader's format stores it."""
    weight = f"{layer}.weight"
    _, shape, _ = tensors[weight]
    marker = {"format": form}
    result = dict(tensors)
    if form == "int8_tensorwise":
        result[weight] = ("I8", shape, None)
        result[f"{layer}.weight_scale"] = ("F32", [shape[0], 1] if len(shape) == 2 else [], None)
    elif form == "convrot_w4a4":
        marker |= {"convrot_groupsize": 64}
        result[weight] = ("I8", [shape[0], shape[1] // 2], None)
        result[f"{layer}.weight_scale"] = ("F32", [shape[0]], None)
    elif form == "float8_e4m3fn":
        result[weight] = ("F8_E4M3", shape, None)
        result[f"{layer}.weight_scale"] = ("F32", [], None)
    text = json.dumps(marker).encode()
    result[f"{layer}.comfy_quant"] = ("U8", [len(text)], text)
    return result


def legacy(tensors, layer, prefix="", scale="scale_weight"):
    """The same with one layer as older files of scaled float8 have it; the marker is below this prefix. None: there is none."""
    result = dict(tensors)
    result[f"{layer}.weight"] = ("F8_E4M3", tensors[f"{layer}.weight"][1], None)
    result[f"{layer}.{scale}"] = ("F32", [], None)
    if prefix is not None:
        result[f"{prefix}scaled_fp8"] = ("F8_E4M3", [0], None)
    return result


def largest_layer(tensors):
    """The layer with the most values that is no table, and no head, which some readers of text encoders leave out."""
    tables = ("embed", "shared.weight", "relative_attention_bias", "lm_head")
    matrices = [(shape[0] * shape[1], name) for name, (_, shape, _) in tensors.items()
                if len(shape) == 2 and name.endswith(".weight") and not any(table in name for table in tables)]
    return max(matrices)[1].removesuffix(".weight")


# Diffusion models: BaseModel gives all of their linear layers the operations that read markers (comfy/model_base.py, pick_operations), once
# model_detection.py has recognised them below "model.diffusion_model." or without a prefix.
DIFFUSION = """anima_2b aura_flow boogu chroma cogvideox_5b cosmos1_7b cosmos_predict2_2b ernie_image flux1_dev flux2_dev hidream_i1 hunyuan_dit
    hunyuan_video hunyuan_video15 ideogram4 kandinsky5 krea2 lens ltx2_19b ltxv_13b lumina2 minimax_h3 mochi omnigen2 pixart_sigma qwen_image
    qwen_image_edit_2511 qwen_image_layered radiance sd15 sd21 sd35_large sdxl sdxl_refiner seedvr2_3b wan21_14b wan21_i2v_14b wan21_vace_14b
    wan22_animate_14b wan22_s2v_14b z_image""".split()

# Text encoders whose markers sd.py passes on (t5xxl_detect, llama_detect; sd1_clip.py, quantization_metadata).
TEXT = """t5xxl_encoder umt5xxl_encoder gemma2_2b gemma3_12b gemma4_e4b gpt_oss_20b llama31_8b ministral3_3b mistral3_24b qwen25_vl_7b qwen35_27b
    qwen3_4b qwen3_vl_8b""".split()

# SDClipModel builds these with manual_cast, which reads no markers: nothing passes quantization_metadata on to them.
CLIP = ["clip_l", "clip_g"]

# convert_diffusers_mmdit and its like make new weights of these and leave every other tensor behind.
RENAMED = ["diffusers_aura_flow", "diffusers_flux1", "diffusers_pixart", "diffusers_sd3", "diffusers_sdxl", "diffusers_z_image"]

CLIP_IN_SDXL = "conditioner.embedders.0.transformer."
CLIP_G_IN_SDXL = "conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_fc"
VAE = "first_stage_model.decoder.mid.attn_1.q"
T5_LAYER = "encoder.block.0.layer.0.SelfAttention.q"


def sdxl_checkpoint():
    return (floats("sdxl", "model.diffusion_model.") | floats("clip_l", CLIP_IN_SDXL)
            | {f"{CLIP_G_IN_SDXL}.weight": ("F16", [5120, 1280], None), f"{VAE}.weight": ("F16", [512, 512, 1, 1], None),
               "first_stage_model.decoder.conv_in.weight": ("F16", [512, 4, 3, 3], None)})


def flux_checkpoint():
    return (floats("flux1_dev", "model.diffusion_model.") | floats("t5xxl_encoder", "text_encoders.t5xxl.transformer.")
            | floats("clip_l", "text_encoders.clip_l.transformer.") | {"vae.decoder.conv_in.weight": ("F32", [512, 16, 3, 3], None)})


def renamed(tensors, *pairs):
    """The same with other beginnings of names: the first pair that fits."""
    def of(name):
        for old, new in pairs:
            if name.startswith(old):
                return new + name.removeprefix(old)
        return name
    return {of(name): entry for name, entry in tensors.items()}


def resized(tensors, sizes):
    return {name: (dtype, [sizes.get(n, n) for n in shape], data) for name, (dtype, shape, data) in tensors.items()}


def other_text_encoders():
    """Names and sizes that are nearly those that detect_te_model looks for."""
    def row(what, tensors, loads, layer="mlp.up_proj"):
        return what, marked(tensors, next(name for name in tensors if name.endswith(f"{layer}.weight")).removesuffix(".weight")), loads
    to_nested, to_flat = ("model.", "model.language_model."), (("model.language_model.", "model."), ("model.visual.", "visual."))
    for model in ("gemma4_e4b", "ministral3_3b", "mistral3_24b"):  # none of them is found: CLIP-L is built instead
        yield row(f"{model}, nested", renamed(floats(model), to_nested), UNKNOWN)
    # Taken for Qwen2.5-7B, whose sizes do not fit.
    yield row("GPT-OSS with 'model.'", renamed(floats("gpt_oss_20b"), ("", "model.")), UNKNOWN, "self_attn.o_proj")
    few = {name: entry for name, entry in floats("gemma4_e4b").items() if "layers.41." not in name}
    yield row("Gemma 4 with fewer layers than ComfyUI looks for", few, UNKNOWN)
    # Taken for Qwen3, and the vision tower is left out.
    flat = renamed(floats("qwen3_vl_8b"), *to_flat)
    yield row("Qwen3-VL 8B, flat", flat, UNKNOWN)
    # MiniMax H3's: the only Qwen3-VL that is found by flat names, and by its 50th layer.
    large = resized(flat, {4096: 5120})
    yield row("Qwen3-VL 32B, flat, of 2 layers", large, UNKNOWN)
    large["model.layers.49.self_attn.q_proj.weight"] = ("BF16", [8192, 5120], None)
    yield row("Qwen3-VL 32B, flat", large, YES)
    yield row("Qwen3-VL 32B, nested", renamed(large, to_nested, ("visual.", "model.visual.")), UNKNOWN)
    yield row("Qwen3 of width 5120", resized(floats("qwen3_4b"), {2560: 5120}), UNKNOWN)  # taken for Mistral 3
    # T5_XXL_OLD: Cosmos 1 has the T5 of the first version, of 24 blocks.
    old = {f"encoder.block.{b}.layer.1.DenseReluDense.wi.weight": ("F16", [65536, 1024], None) for b in range(24)}
    old |= {f"encoder.block.{b}.layer.0.SelfAttention.{x}.weight": ("F16", [16384, 1024], None) for b in range(24) for x in "qkv"}
    old["encoder.block.0.layer.0.layer_norm.weight"] = ("F16", [1024], None)
    yield row("T5 of Cosmos 1", old, YES, "DenseReluDense.wi")
    short = {name: entry for name, entry in old.items() if "block.23." not in name}
    yield row("T5 of width 1024 and 23 blocks", short, UNKNOWN, "DenseReluDense.wi")
    # sa3.py passes no quantization_metadata on.
    gemma = {"model.encoder.layers.0.pre_self_attn_layernorm.weight": ("F16", [768], None),
             "model.encoder.layers.0.mlp.up_proj.weight": ("F16", [2048, 768], None)}
    yield row("T5Gemma", gemma, NO)


def text_encoders_in_checkpoints():
    """supported_models.py, clip_target: which get the metadata of detect_layer_quantization."""
    def row(what, diffusion, name, model, layer, loads):
        prefix = f"text_encoders.{name}.transformer."
        encoder = resized(floats(model, prefix), {128256: 128320} if what.startswith("HunyuanVideo") else {})  # it has a few tokens more
        return what, marked({f"model.diffusion_model.{key}": entry for key, entry in diffusion.items()} | encoder, prefix + layer), loads
    gemma_layer, llama_layer = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"
    yield row("CogVideoX checkpoint, T5", floats("cogvideox_5b"), "t5xxl", "t5xxl_encoder", T5_LAYER, NO)
    for what, key in (("PixelDiT", "core.pixel_embedder.proj.weight"), ("PiD", "lq_proj.latent_proj.0.weight")):
        yield row(f"{what} checkpoint, Gemma 2", {key: ("BF16", [64, 64], None)}, "gemma2_2b", "gemma2_2b", gemma_layer, NO)
    yield row("Lumina 2 checkpoint, Gemma 2", floats("lumina2"), "gemma2_2b", "gemma2_2b", gemma_layer, YES)
    yield row("HiDream checkpoint, Llama", floats("hidream_i1"), "llama", "llama31_8b", llama_layer, NO)  # clip_target is None
    yield row("HunyuanVideo checkpoint, Llama", floats("hunyuan_video"), "llama", "llama31_8b", llama_layer, YES)
    # PixArt's T5 gets no metadata; Flux's does.
    yield row("PixArt checkpoint, T5", floats("pixart_sigma"), "t5xxl", "t5xxl_encoder", T5_LAYER, NO)


def rows():
    """(what it is, tensors, whether ComfyUI loads it)."""
    for model in DIFFUSION + TEXT:
        tensors = floats(model)
        yield model, marked(tensors, largest_layer(tensors)), YES
    for model in CLIP + RENAMED:
        tensors = floats(model)
        yield model, marked(tensors, largest_layer(tensors)), NO
        yield f"{model}, floats only", tensors, YES
    sdxl, flux = sdxl_checkpoint(), flux_checkpoint()
    unet = "model.diffusion_model.input_blocks.4.1.proj_in"
    # Part by part: the UNet is read quantized, CLIP, CLIP-G (sdxl_clip.py) and the VAE (VAE.__init__) are not.
    yield "SDXL checkpoint, UNet", marked(sdxl, unet), YES
    yield "SDXL checkpoint, CLIP-L", marked(sdxl, CLIP_IN_SDXL + "text_model.encoder.layers.0.mlp.fc1"), NO
    yield "SDXL checkpoint, CLIP-G", marked(sdxl, CLIP_G_IN_SDXL), NO
    yield "SDXL checkpoint, VAE", marked(sdxl, VAE), NO
    yield "SDXL checkpoint, UNet and CLIP-L", marked(marked(sdxl, unet), CLIP_IN_SDXL + "text_model.encoder.layers.0.mlp.fc1"), NO
    t5_layer = f"text_encoders.t5xxl.transformer.{T5_LAYER}"
    yield "Flux checkpoint, T5", marked(flux, t5_layer), YES
    yield "Flux checkpoint, CLIP-L", marked(flux, "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1"), NO
    yield "SD1.5 checkpoint, CLIP", marked(floats("sd15", "model.diffusion_model.") | floats("clip_l", "cond_stage_model.transformer."),
                                           "cond_stage_model.transformer.text_model.encoder.layers.3.self_attn.q_proj"), NO
    yield from text_encoders_in_checkpoints()
    yield from other_text_encoders()
    # controlnet.py (controlnet_config) picks operations without a quant_config.
    control = floats("flux1_dev") | {"controlnet_blocks.0.weight": ("BF16", [3072, 3072], None)}
    yield "ControlNet", marked(control, "double_blocks.0.img_attn.proj"), NO
    vision = {"vision_model.encoder.layers.0.mlp.fc1.weight": ("F16", [4096, 1024], None)}  # clip_vision.py: manual_cast
    yield "vision encoder", marked(vision, "vision_model.encoder.layers.0.mlp.fc1"), NO
    # unet_prefix_from_state_dict knows model.diffusion_model., model.model. and net.
    flux_layer = "double_blocks.0.img_attn.proj"
    for prefix, loads in (("", YES), ("model.diffusion_model.", YES), ("net.", YES), ("transformer.", UNKNOWN), ("diffusion_model.", UNKNOWN)):
        yield f"Flux below '{prefix}'", marked(floats("flux1_dev", prefix), prefix + flux_layer), loads
    # detect_te_model looks for "model.layers.0...", and tells models apart by their width.
    bare = {name.removeprefix("model."): entry for name, entry in floats("qwen3_4b").items()}
    yield "Qwen3 without 'model.'", marked(bare, "layers.0.mlp.up_proj"), UNKNOWN
    yield "Qwen3 of width 256", marked(resized(floats("qwen3_4b"), {2560: 256}), "model.layers.0.mlp.up_proj"), UNKNOWN
    yield "Pile-T5-XL", marked(resized(floats("t5xxl_encoder"), {4096: 2048}), T5_LAYER), NO  # aura_t5.py takes no quantization_metadata
    unknown = {"body.0.q.weight": ("BF16", [256, 256], None)}
    yield "unknown model", marked(unknown, "body.0.q"), UNKNOWN
    yield "unknown model, floats only", unknown, UNKNOWN
    # mixed_precision_ops: Linear reads all formats, Embedding float8 and int8; a bare nn.Parameter (HiDream's router) and a convolution none.
    yield "T5, table as int8", marked(floats("t5xxl_encoder"), "shared"), YES
    yield "T5, table as float8", marked(floats("t5xxl_encoder"), "shared", "float8_e4m3fn"), YES
    yield "T5, table as int4", marked(floats("t5xxl_encoder"), "shared", "convrot_w4a4"), NO
    yield "T5, layer as int4", marked(floats("t5xxl_encoder"), T5_LAYER, "convrot_w4a4"), YES
    yield "HiDream, router", marked(floats("hidream_i1"), "double_stream_blocks.0.block.ff_i.gate"), NO
    yield "SDXL, convolution", marked(floats("sdxl"), "input_blocks.0.0"), NO
    # convert_old_quants: "PREFIX.scaled_fp8" marks what has a .scale_weight below the prefix that a loader looks at, unless the header has an entry.
    yield "old float8, Flux", legacy(floats("flux1_dev"), flux_layer), YES
    yield "old float8, Flux below a prefix", legacy(floats("flux1_dev", "model.diffusion_model."), "model.diffusion_model." + flux_layer,
                                                    "model.diffusion_model."), YES
    yield "old float8, T5", legacy(floats("t5xxl_encoder"), T5_LAYER), YES
    yield "old float8, T5 in a checkpoint", legacy(flux, t5_layer, "text_encoders.t5xxl.transformer."), YES
    yield "old float8, CLIP-L", legacy(floats("clip_l"), "text_model.encoder.layers.0.mlp.fc1"), NO
    yield "old float8, CLIP-L in a checkpoint", legacy(sdxl, CLIP_IN_SDXL + "text_model.encoder.layers.0.mlp.fc1", "model.diffusion_model."), NO
    yield "old float8, marker outside", legacy(floats("flux1_dev", "model.diffusion_model."), "model.diffusion_model." + flux_layer), NO
    yield "old float8, no marker", legacy(floats("flux1_dev"), flux_layer, None), NO
    yield "old float8, another scale", legacy(floats("flux1_dev"), flux_layer, scale="weight_scale"), NO
    # model_detection.py reads the columns of img_in: packed, it shows half of them.
    yield "Flux, img_in as int4", marked(floats("flux1_dev"), "img_in", "convrot_w4a4"), NO


class Verify(TempFolder):
    def test_each_file_is_judged_as_its_reader_would_load_it(self):
        path = self.folder / "model.safetensors"
        wrong, count = [], 0
        for what, tensors, loads in rows():
            write_header(path, tensors)
            status = 1 if loads is NO else 0
            report = qmill_json("verify", path, "--no-data", run=functools.partial(qmill, status=status))
            reader = report["readers"][0]
            if reader["loads"] is not loads:
                wrong.append(f"{what}: {reader}")
            if loads is not YES:
                self.assertNotEqual(reader["because"], "", what)
            count += 1
        self.assertGreaterEqual(count, 125)
        self.assertFalse(wrong, "\n".join(wrong))

    def test_the_first_release_depends_on_what_the_layer_is(self):
        path, t5 = self.folder / "model.safetensors", floats("t5xxl_encoder")
        for layer, form, since in ((T5_LAYER, "int8_tensorwise", "0.27.0"), ("shared", "int8_tensorwise", "0.30.0"), ("shared", "float8_e4m3fn", "0.21.0"),
                                   (T5_LAYER, "float8_e4m3fn", ""), (T5_LAYER, "convrot_w4a4", "0.28.0")):
            write_header(path, marked(t5, layer, form))
            self.assertEqual(qmill_json("verify", path, "--no-data")["readers"][0]["since"], since, (layer, form))
        write_header(path, marked(marked(t5, "shared"), T5_LAYER, "convrot_w4a4"))
        self.assertEqual(qmill_json("verify", path, "--no-data")["readers"][0]["since"], "0.30.0")

    def test_of_a_marker_outside_it_says_which_loader_reads_it(self):
        path, layer = self.folder / "model.safetensors", "model.diffusion_model.double_blocks.0.img_attn.proj"
        for tensors, both in ((legacy(floats("flux1_dev", "model.diffusion_model."), layer), True),
                              (legacy(floats("flux1_dev", "model.diffusion_model."), layer, None), False)):
            write_header(path, tensors)
            report = qmill_json("verify", path, "--no-data", run=functools.partial(qmill, status=1))
            found = [finding["text"] for finding in report["findings"] if finding["rule"] == "unmarked-codes"]
            self.assertEqual(len(found), 1)
            self.assertIn("is not read", found[0])
            self.assertEqual("where it loads a diffusion model alone, it is" in found[0], both, found)

    def test_qwen3_vl_is_told_the_name_that_is_looked_for(self):
        path = self.folder / "model.safetensors"
        flat = renamed(floats("qwen3_vl_8b"), ("model.language_model.", "model."), ("model.visual.", "visual."))
        write_header(path, marked(flat, "model.layers.0.mlp.up_proj"))
        because = qmill_json("verify", path, "--no-data")["readers"][0]["because"]
        self.assertIn("'model.visual.deepstack_merger_list.0.norm.weight'", because)
        self.assertNotIn("rename", because)

    def test_a_tokenizer_that_is_missing_is_a_remark(self):
        path = self.folder / "model.safetensors"
        for has_one in (False, True):
            tensors = floats("umt5xxl_encoder") | ({"spiece_model": ("U8", [8], None)} if has_one else {})
            write_header(path, tensors)
            rules = [finding["rule"] for finding in qmill_json("verify", path, "--no-data")["findings"]]
            self.assertEqual(rules, [] if has_one else ["tokenizer"])

    def test_the_text_says_what_is_not_known(self):
        path = self.model({"body.0.q.weight": torch.zeros(4, 4)})
        output, _ = qmill("verify", path)
        self.assertIn("not known: model-part: the model: its architecture is not recognised", output)


CLIP_LAYERS = [f"text_model.encoder.layers.{i}.{layer}" for i in range(2) for layer in ("mlp.fc1", "mlp.fc2", "self_attn.q_proj")]


def clip_tensors(prefix=""):
    return {f"{prefix}{layer}.weight": torch.randn(256, 256, dtype=torch.float16) for layer in CLIP_LAYERS}


def quantized(path):
    return {name.removesuffix(".comfy_quant") for name in read(path)[0] if name.endswith(".comfy_quant")}


class Convert(TempFolder):
    UNET = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0."

    def checkpoint(self):
        tensors = clip_tensors("cond_stage_model.transformer.")
        tensors["model.diffusion_model.input_blocks.0.0.weight"] = torch.randn(64, 4, 3, 3)
        tensors[self.UNET + "attn2.to_k.weight"] = torch.randn(256, 768)
        tensors[self.UNET + "attn1.to_q.weight"] = torch.randn(256, 256)
        tensors["first_stage_model.decoder.mid.lin.weight"] = torch.randn(256, 256)
        return self.model(tensors)

    def test_it_keeps_what_the_reader_loads_as_floats_and_says_so(self):
        path, out = self.checkpoint(), self.folder / "out.safetensors"
        output, _ = qmill("convert", path, out, "--filter", "none")
        self.assertEqual(quantized(out), {self.UNET + "attn2.to_k", self.UNET + "attn1.to_q"})
        self.assertIn("6 layers are kept, in the CLIP text encoder", output)
        self.assertIn("1 layer is kept, in the VAE", output)
        self.assertIn("--target any", output)
        before, after = read(path)[0], read(out)[0]
        for name in before:
            if not name.startswith("model.diffusion_model."):
                self.assertTrue(torch.equal(before[name], after[name]), name)
        qmill("verify", out)

    def test_target_any_quantizes_them_and_warns(self):
        path, out = self.checkpoint(), self.folder / "out.safetensors"
        output, _ = qmill("convert", path, out, "--filter", "none", "--target", "any")
        self.assertEqual(len(quantized(out)), 9)
        self.assertIn("mainline ComfyUI does not load quantized layers of", output)
        self.assertIn("6 layers are quantized, in the CLIP text encoder", output)
        qmill("verify", out, status=1)

    def test_a_rule_of_the_user_does_not_lift_it(self):
        path, out = self.checkpoint(), self.folder / "out.safetensors"
        qmill("convert", path, out, "--custom-layers", "text_model", "--custom-type", "int8")
        self.assertFalse(any("text_model" in layer for layer in quantized(out)))
        qmill("convert", path, out, "--overwrite", "--custom-layers", "text_model", "--custom-type", "fp16")  # floats are read everywhere

    def test_clip_alone_is_refused_with_the_reason(self):
        path = self.model(clip_tensors())
        self.refused("convert", path, self.folder / "out.safetensors", choose=list,
                     says=["0 layers selected", "the CLIP-L text encoder", "without quantized layers", "--target any"])

    def test_a_table_stays_a_float_where_the_format_is_not_read(self):
        tensors = {f"encoder.block.{i}.layer.0.SelfAttention.q.weight": torch.randn(256, 256) for i in range(2)}
        tensors |= {"encoder.block.0.layer.0.layer_norm.weight": torch.ones(256), "shared.weight": torch.randn(128, 256),
                    "encoder.block.0.layer.1.DenseReluDense.wo.weight": torch.randn(256, 256)}
        path, out = self.model(tensors), self.folder / "out.safetensors"
        output, _ = qmill("convert", path, out, "--filter", "none", "--format", "int4")
        self.assertNotIn("shared", quantized(out))
        self.assertIn("1 layer is kept, in embedding tables", output)
        qmill("convert", path, out, "--filter", "none", "--overwrite")
        self.assertIn("shared", quantized(out))


class Filters(TempFolder):
    def body(self, **more):
        tensors = {f"body.{i}.{layer}.weight": torch.randn(64, 64) for i in range(2) for layer in ("q", "k")}
        tensors |= {"first.weight": torch.randn(64, 64), "last.weight": torch.randn(64, 64), "body.0.norm1.linear.weight": torch.randn(64, 64)}
        return self.model(tensors | more)

    def test_the_default_is_the_filter_of_the_model(self):
        path, plan = self.folder / "flux.safetensors", self.folder / "out.safetensors"
        keys.write(path, keys.tensors("flux1_dev"))
        self.assertEqual(qmill_json("plan", path, "-o", plan)["filters"], ["flux"])
        self.assertEqual(qmill_json("plan", path, "-o", plan, "--filter", "none")["filters"], [])
        self.assertEqual(qmill_json("plan", path, "-o", plan, "--distillation-small")["filters"], ["distillation_small"])
        self.assertIn("flux1, filter flux", qmill("plan", path, "-o", plan)[0])

    def test_of_an_unknown_model_the_structure_decides_and_it_says_so(self):
        path, out = self.body(), self.folder / "out.safetensors"
        output, _ = qmill("convert", path, out)
        self.assertEqual(quantized(out), {f"body.{i}.{layer}" for i in range(2) for layer in ("q", "k")})
        for part in ("not recognised", "--filter structural keeps 3 layers", "--filter none", "not known: the model"):
            self.assertIn(part, output)
        output, _ = qmill("convert", path, out, "--overwrite", "--filter", "none")
        self.assertEqual(len(quantized(out)), 7)
        self.assertNotIn("structural", output)

    def test_it_is_recorded_and_casts_have_none(self):
        path, out = self.body(), self.folder / "out.safetensors"
        qmill("convert", path, out)
        metadata = read(out)[1]
        self.assertEqual(json.loads(metadata["qmill.options"]), {"filter": "auto"})
        self.assertEqual(json.loads(metadata["qmill.filters"]), ["structural"])
        qmill("convert", path, out, "--overwrite", "--fp16")
        self.assertEqual({str(tensor.dtype) for tensor in read(out)[0].values()}, {"torch.float16"})

    def test_none_stands_alone(self):
        path = self.body()
        for other in (["--filter", "flux"], ["--t5xxl"]):
            self.refused("convert", path, self.folder / "out.safetensors", "--filter", "none", *other, status=2, says=["--filter none", other[-1].strip("-")])


class Rename(TempFolder):
    def encoder(self, width=256):
        tensors = {"token_embd.weight": torch.randn(64, width), "enc.output_norm.weight": torch.ones(width),
                   "enc.blk.0.attn_rel_b.weight": torch.randn(32, 8)}
        for i in range(2):
            tensors |= {f"enc.blk.{i}.{name}.weight": torch.randn(width, width)
                        for name in ("attn_q", "attn_k", "attn_v", "attn_o", "ffn_gate", "ffn_up", "ffn_down")}
            tensors |= {f"enc.blk.{i}.{name}.weight": torch.ones(width) for name in ("attn_norm", "ffn_norm")}
        return self.model(tensors), tensors

    def test_without_it_nothing_is_claimed(self):
        path, _ = self.encoder()
        output, _ = qmill("convert", path, self.folder / "out.safetensors")
        self.assertIn("readers    not known", output)
        self.assertIn("--rename", output)
        self.assertNotIn("token_embd", quantized(self.folder / "out.safetensors"))

    def test_it_gives_the_names_that_the_reader_knows(self):
        path, tensors = self.encoder()
        out = self.folder / "out.safetensors"
        output, _ = qmill("convert", path, out, "--rename", "--convrot", "off")
        self.assertIn("names of llama.cpp (t5)", output)
        self.assertIn("filter t5xxl", output)
        real = keys.tensors("umt5xxl_encoder") | keys.tensors("t5xxl_encoder")
        stored, metadata = read(out)
        names = {name for name in stored if name.endswith("weight")}
        self.assertTrue(names <= set(real), names - set(real))
        self.assertEqual(len(names), len(tensors))
        self.assertNotIn("shared", quantized(out))
        self.assertEqual(json.loads(metadata["qmill.options"])["rename"], "on")
        layer = "encoder.block.1.layer.1.DenseReluDense.wi_0"
        decoded = stored[f"{layer}.weight"].double() * stored[f"{layer}.weight_scale"].double()
        self.assertLess((decoded - tensors["enc.blk.1.ffn_gate.weight"]).abs().max().item(), 0.05)

    def test_it_says_when_it_does_nothing(self):
        path = self.model({"body.0.q.weight": torch.randn(64, 64)})
        output, _ = qmill("convert", path, self.folder / "out.safetensors", "--rename")
        self.assertIn("--rename changes nothing", output)


if __name__ == "__main__":
    unittest.main()
