"""What diffusers (and once Tencent) calls the layers of models that ComfyUI stores, written down from the structure of these models.

Nothing here reads the packs of filters: tests compare the two.
"""

import keys


class Layer:
    """`rows` of the layer `base` of the model, first and count; `swapped`: the halves of these rows are the other way round."""

    def __init__(self, base, first=0, count=None, swapped=False):
        self.base, self.first, self.count, self.swapped = base, first, count, swapped


class Family:
    """The tensors of a small model of a real layout, and the names of its layers in diffusers."""

    limit = 2  # blocks of each kind that are kept
    divisor = 64
    shapes = {}  # of tensors that tell the architecture by their width
    component = "transformer"  # what diffusers calls the model in a pipeline

    def __init__(self):
        self.tensors = {}
        for name, (_, shape) in self.listed().items():
            self.tensors[name] = self.shapes.get(name) or [max(1, n // self.divisor) if n > 16 else n for n in shape]

    def listed(self):
        return {n: v for n, v in keys.tensors(self.keys).items() if self.is_kept(n)}

    def is_kept(self, name):
        parts = name.split(".")
        return not (parts[0].endswith(("blocks", "layers", "refiner")) and parts[1].isdigit() and int(parts[1]) >= self.limit)

    def rows(self, base):
        return self.tensors[f"{base}.weight"][0]

    def columns(self, base):
        return self.tensors[f"{base}.weight"][1]

    def has(self, base):
        return f"{base}.weight" in self.tensors

    def linears(self):
        """Layers that trainers make LoRAs for: matrices and convolutions, but no tables and norms."""
        return [n.removesuffix(".weight") for n, s in self.tensors.items() if n.endswith(".weight") and len(s) >= 2 and not self.is_table(n)]

    def is_table(self, name):
        return False

    def blocks(self, prefix):
        return sorted({int(n.removeprefix(prefix + ".").split(".")[0]) for n in self.tensors if n.startswith(prefix + ".")})

    def thirds(self, names, base):
        n = self.rows(base) // 3
        return {name: Layer(base, i * n, n) for i, name in enumerate(names)}


def scale_first(base):
    return Layer(base, swapped=True)


class Flux1(Family):
    keys = "flux1_dev"

    def names(self):
        found = {"x_embedder": Layer("img_in"), "context_embedder": Layer("txt_in"), "proj_out": Layer("final_layer.linear")}
        for theirs, ours in (("timestep", "time_in"), ("text", "vector_in"), ("guidance", "guidance_in")):
            for i, layer in ((1, "in_layer"), (2, "out_layer")):
                found[f"time_text_embed.{theirs}_embedder.linear_{i}"] = Layer(f"{ours}.{layer}")
        found["norm_out.linear"] = scale_first("final_layer.adaLN_modulation.1")
        return found | self.double() | self.single()

    def double(self, ff=("ff.net.0.proj", "ff.net.2"), ff_context=("ff_context.net.0.proj", "ff_context.net.2")):
        found = {}
        for i in self.blocks("double_blocks"):
            theirs, ours = f"transformer_blocks.{i}", f"double_blocks.{i}"
            found |= self.thirds([f"{theirs}.attn.to_{x}" for x in "qkv"], f"{ours}.img_attn.qkv")
            found |= self.thirds([f"{theirs}.attn.add_{x}_proj" for x in "qkv"], f"{ours}.txt_attn.qkv")
            found[f"{theirs}.attn.to_out.0"] = Layer(f"{ours}.img_attn.proj")
            found[f"{theirs}.attn.to_add_out"] = Layer(f"{ours}.txt_attn.proj")
            for name, stream in ((ff, "img"), (ff_context, "txt")):
                found[f"{theirs}.{name[0]}"] = Layer(f"{ours}.{stream}_mlp.0")
                found[f"{theirs}.{name[1]}"] = Layer(f"{ours}.{stream}_mlp.2")
            for norm, stream in (("norm1", "img"), ("norm1_context", "txt")):
                if self.has(f"{ours}.{stream}_mod.lin"):
                    found[f"{theirs}.{norm}.linear"] = Layer(f"{ours}.{stream}_mod.lin")
        return found

    def single(self):
        found = {}
        for i in self.blocks("single_blocks"):
            theirs, ours = f"single_transformer_blocks.{i}", f"single_blocks.{i}"
            fused = f"{ours}.linear1"
            width = self.columns(fused)
            for at, name in enumerate(("attn.to_q", "attn.to_k", "attn.to_v")):
                found[f"{theirs}.{name}"] = Layer(fused, at * width, width)
            found[f"{theirs}.proj_mlp"] = Layer(fused, 3 * width, self.rows(fused) - 3 * width)
            found[f"{theirs}.proj_out"] = Layer(f"{ours}.linear2")
            if self.has(f"{ours}.modulation.lin"):
                found[f"{theirs}.norm.linear"] = Layer(f"{ours}.modulation.lin")
        return found


class Chroma(Flux1):
    keys = "chroma"

    def names(self):
        found = {"x_embedder": Layer("img_in"), "context_embedder": Layer("txt_in"), "proj_out": Layer("final_layer.linear")}
        guidance = "distilled_guidance_layer"
        found |= {f"{guidance}.{n}_proj": Layer(f"{guidance}.{n}_proj") for n in ("in", "out")}
        for i in self.blocks(f"{guidance}.layers"):
            for at, name in ((1, "in"), (2, "out")):
                found[f"{guidance}.layers.{i}.linear_{at}"] = Layer(f"{guidance}.layers.{i}.{name}_layer")
        return found | self.double() | self.single()


class Flux2(Flux1):
    keys = "flux2_dev"

    def names(self):
        found = {"x_embedder": Layer("img_in"), "context_embedder": Layer("txt_in"), "proj_out": Layer("final_layer.linear")}
        for theirs, ours in (("timestep", "time_in"), ("guidance", "guidance_in")):
            for i, layer in ((1, "in_layer"), (2, "out_layer")):
                found[f"time_guidance_embed.{theirs}_embedder.linear_{i}"] = Layer(f"{ours}.{layer}")
        for name in ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation"):
            found[f"{name}.linear"] = Layer(f"{name}.lin")
        found["norm_out.linear"] = scale_first("final_layer.adaLN_modulation.1")
        for i in self.blocks("single_blocks"):
            found[f"single_transformer_blocks.{i}.attn.to_qkv_mlp_proj"] = Layer(f"single_blocks.{i}.linear1")
            found[f"single_transformer_blocks.{i}.attn.to_out"] = Layer(f"single_blocks.{i}.linear2")
        return found | self.double(("ff.linear_in", "ff.linear_out"), ("ff_context.linear_in", "ff_context.linear_out"))


class HunyuanVideo(Flux1):
    keys = "hunyuan_video"
    time = "time_text_embed"

    def names(self):
        found = {"x_embedder.proj": Layer("img_in.proj"), "proj_out": Layer("final_layer.linear"),
                 "norm_out.linear": scale_first("final_layer.adaLN_modulation.1"), "context_embedder.proj_in": Layer("txt_in.input_embedder")}
        for theirs, ours in (("timestep", "time_in"), ("text", "vector_in"), ("guidance", "guidance_in")):
            for i, layer in ((1, "in_layer"), (2, "out_layer")):
                if self.has(f"{ours}.{layer}"):
                    found[f"{self.time}.{theirs}_embedder.linear_{i}"] = Layer(f"{ours}.{layer}")
        for theirs, ours in (("timestep", "t"), ("text", "c")):
            for i, layer in ((1, "in_layer"), (2, "out_layer")):
                found[f"context_embedder.time_text_embed.{theirs}_embedder.linear_{i}"] = Layer(f"txt_in.{ours}_embedder.{layer}")
        for i in self.blocks("txt_in.individual_token_refiner.blocks"):
            theirs, ours = f"context_embedder.token_refiner.refiner_blocks.{i}", f"txt_in.individual_token_refiner.blocks.{i}"
            found |= self.thirds([f"{theirs}.attn.to_{x}" for x in "qkv"], f"{ours}.self_attn.qkv")
            found |= {f"{theirs}.attn.to_out.0": Layer(f"{ours}.self_attn.proj"), f"{theirs}.ff.net.0.proj": Layer(f"{ours}.mlp.0"),
                      f"{theirs}.ff.net.2": Layer(f"{ours}.mlp.2"), f"{theirs}.norm_out.linear": Layer(f"{ours}.adaLN_modulation.1")}
        return found | self.double() | self.single()


class HunyuanVideo15(HunyuanVideo):
    keys = "hunyuan_video15"
    time = "time_embed"

    def is_table(self, name):
        return name == "cond_type_embedding.weight"

    def names(self):
        found = super().names() | {f"context_embedder_2.linear_{i}": Layer(f"byt5_in.fc{i}") for i in (1, 2, 3)}
        return found | {"image_embedder.linear_1": Layer("vision_in.proj.1"), "image_embedder.linear_2": Layer("vision_in.proj.3")}


class HunyuanVideoOfTencent(HunyuanVideo):
    """The names of the first implementation, with which many LoRAs were trained."""

    changes = ((".img_attn.", ".img_attn_"), (".txt_attn.", ".txt_attn_"), (".self_attn.", ".self_attn_"), ("_mod.lin", "_mod.linear"),
               (".modulation.lin", ".modulation.linear"), ("mlp.0", "mlp.fc1"), ("mlp.2", "mlp.fc2"), ("time_in.in_layer", "time_in.mlp.0"),
               ("time_in.out_layer", "time_in.mlp.2"), ("guidance_in.in_layer", "guidance_in.mlp.0"), ("guidance_in.out_layer", "guidance_in.mlp.2"),
               ("txt_in.t_embedder.in_layer", "txt_in.t_embedder.mlp.0"), ("txt_in.t_embedder.out_layer", "txt_in.t_embedder.mlp.2"),
               ("txt_in.c_embedder.in_layer", "txt_in.c_embedder.linear_1"), ("txt_in.c_embedder.out_layer", "txt_in.c_embedder.linear_2"))

    def names(self):
        found = {}
        for base in self.linears():
            name = base
            for ours, theirs in self.changes:
                if ours in base:
                    name = name.replace(ours, theirs)
            found[name] = Layer(base)
        return found


class Sd3(Family):
    keys = "sd35_large"

    def __init__(self):
        super().__init__()
        # The last block of the text has its normalization alone, as AdaLayerNormContinuous.
        last = "joint_blocks.1.context_block"
        width = self.columns(f"{last}.attn.qkv")
        self.tensors = {n: s for n, s in self.tensors.items() if not n.startswith((f"{last}.attn.proj", f"{last}.mlp"))}
        self.tensors[f"{last}.adaLN_modulation.1.weight"] = [2 * width, width]
        self.tensors[f"{last}.adaLN_modulation.1.bias"] = [2 * width]

    def names(self):
        found = {"context_embedder": Layer("context_embedder"), "pos_embed.proj": Layer("x_embedder.proj"), "proj_out": Layer("final_layer.linear"),
                 "norm_out.linear": scale_first("final_layer.adaLN_modulation.1")}
        for theirs, ours in (("timestep", "t"), ("text", "y")):
            for i, layer in ((1, 0), (2, 2)):
                found[f"time_text_embed.{theirs}_embedder.linear_{i}"] = Layer(f"{ours}_embedder.mlp.{layer}")
        for i in (0, 1):
            theirs, x, context = f"transformer_blocks.{i}", f"joint_blocks.{i}.x_block", f"joint_blocks.{i}.context_block"
            found |= self.thirds([f"{theirs}.attn.to_{n}" for n in "qkv"], f"{x}.attn.qkv")
            found |= self.thirds([f"{theirs}.attn.add_{n}_proj" for n in "qkv"], f"{context}.attn.qkv")
            found |= {f"{theirs}.attn.to_out.0": Layer(f"{x}.attn.proj"), f"{theirs}.ff.net.0.proj": Layer(f"{x}.mlp.fc1"),
                      f"{theirs}.ff.net.2": Layer(f"{x}.mlp.fc2"), f"{theirs}.norm1.linear": Layer(f"{x}.adaLN_modulation.1")}
            if i == 0:
                found |= {f"{theirs}.attn.to_add_out": Layer(f"{context}.attn.proj"), f"{theirs}.ff_context.net.0.proj": Layer(f"{context}.mlp.fc1"),
                          f"{theirs}.ff_context.net.2": Layer(f"{context}.mlp.fc2"), f"{theirs}.norm1_context.linear": Layer(f"{context}.adaLN_modulation.1")}
            else:
                found[f"{theirs}.norm1_context.linear"] = scale_first(f"{context}.adaLN_modulation.1")
        return found


class AuraFlow(Family):
    keys = "aura_flow"

    def names(self):
        found = {"pos_embed.proj": Layer("init_x_linear"), "context_embedder": Layer("cond_seq_linear"), "proj_out": Layer("final_linear"),
                 "norm_out.linear": scale_first("modF.1"), "time_step_proj.linear_1": Layer("t_embedder.mlp.0"),
                 "time_step_proj.linear_2": Layer("t_embedder.mlp.2")}
        for i in (0, 1):
            theirs, ours = f"joint_transformer_blocks.{i}", f"double_layers.{i}"
            for x in "qkv":
                found[f"{theirs}.attn.to_{x}"] = Layer(f"{ours}.attn.w2{x}")
                found[f"{theirs}.attn.add_{x}_proj"] = Layer(f"{ours}.attn.w1{x}")
            found |= {f"{theirs}.attn.to_out.0": Layer(f"{ours}.attn.w2o"), f"{theirs}.attn.to_add_out": Layer(f"{ours}.attn.w1o"),
                      f"{theirs}.norm1.linear": Layer(f"{ours}.modX.1"), f"{theirs}.norm1_context.linear": Layer(f"{ours}.modC.1")}
            for ff, mlp in (("ff", "mlpX"), ("ff_context", "mlpC")):
                found |= self.mlp(f"{theirs}.{ff}", f"{ours}.{mlp}")
            theirs, ours = f"single_transformer_blocks.{i}", f"single_layers.{i}"
            found |= {f"{theirs}.attn.to_{x}": Layer(f"{ours}.attn.w1{x}") for x in "qkv"}
            found |= {f"{theirs}.attn.to_out.0": Layer(f"{ours}.attn.w1o"), f"{theirs}.norm1.linear": Layer(f"{ours}.modCX.1")}
            found |= self.mlp(f"{theirs}.ff", f"{ours}.mlp")
        return found

    def mlp(self, theirs, ours):
        return {f"{theirs}.linear_1": Layer(f"{ours}.c_fc1"), f"{theirs}.linear_2": Layer(f"{ours}.c_fc2"),
                f"{theirs}.out_projection": Layer(f"{ours}.c_proj")}


class PixArt(Family):
    keys = "pixart_sigma"

    def names(self):
        found = {"pos_embed.proj": Layer("x_embedder.proj"), "adaln_single.linear": Layer("t_block.1"), "proj_out": Layer("final_layer.linear")}
        for i, layer in ((1, 0), (2, 2)):
            found[f"adaln_single.emb.timestep_embedder.linear_{i}"] = Layer(f"t_embedder.mlp.{layer}")
            found[f"caption_projection.linear_{i}"] = Layer(f"y_embedder.y_proj.fc{i}")
        for i in (0, 1):
            theirs, ours = f"transformer_blocks.{i}", f"blocks.{i}"
            found |= self.thirds([f"{theirs}.attn1.to_{x}" for x in "qkv"], f"{ours}.attn.qkv")
            half = self.rows(f"{ours}.cross_attn.kv_linear") // 2
            found |= {f"{theirs}.attn1.to_out.0": Layer(f"{ours}.attn.proj"), f"{theirs}.attn2.to_q": Layer(f"{ours}.cross_attn.q_linear"),
                      f"{theirs}.attn2.to_k": Layer(f"{ours}.cross_attn.kv_linear", 0, half),
                      f"{theirs}.attn2.to_v": Layer(f"{ours}.cross_attn.kv_linear", half, half),
                      f"{theirs}.attn2.to_out.0": Layer(f"{ours}.cross_attn.proj"), f"{theirs}.ff.net.0.proj": Layer(f"{ours}.mlp.fc1"),
                      f"{theirs}.ff.net.2": Layer(f"{ours}.mlp.fc2")}
        return found


class ZImage(Family):
    keys = "z_image"
    shapes = {"cap_embedder.1.weight": [3840, 40], "cap_embedder.1.bias": [3840]}
    parts = ("layers", "noise_refiner", "context_refiner")

    def names(self):
        found = {n: Layer(n) for n in ("cap_embedder.1", "t_embedder.mlp.0", "t_embedder.mlp.2")}
        found |= {"all_x_embedder.2-1": Layer("x_embedder"), "all_final_layer.2-1.linear": Layer("final_layer.linear"),
                  "all_final_layer.2-1.adaLN_modulation.1": Layer("final_layer.adaLN_modulation.1")}
        for part in self.parts:
            for i in (0, 1):
                block = f"{part}.{i}"
                found |= self.attention(f"{block}.attention", f"{block}.attention")
                found |= {f"{block}.feed_forward.w{n}": Layer(f"{block}.feed_forward.w{n}") for n in (1, 2, 3)}
                if part != "context_refiner":
                    found[f"{block}.adaLN_modulation.0"] = Layer(f"{block}.adaLN_modulation.0")
        return found

    def attention(self, theirs, ours):
        """Keys and values may have fewer heads than queries, which are as wide as the model."""
        fused = f"{ours}.qkv"
        queries = self.columns(fused)
        rest = (self.rows(fused) - queries) // 2
        return {f"{theirs}.to_q": Layer(fused, 0, queries), f"{theirs}.to_k": Layer(fused, queries, rest),
                f"{theirs}.to_v": Layer(fused, queries + rest, rest), f"{theirs}.to_out.0": Layer(f"{ours}.out")}


class Lumina2(ZImage):
    keys = "lumina2"
    shapes = {}

    def names(self):
        found = {"x_embedder": Layer("x_embedder"), "norm_out.linear_1": Layer("final_layer.adaLN_modulation.1"),
                 "norm_out.linear_2": Layer("final_layer.linear"), "time_caption_embed.caption_embedder.1": Layer("cap_embedder.1")}
        for i, layer in ((1, 0), (2, 2)):
            found[f"time_caption_embed.timestep_embedder.linear_{i}"] = Layer(f"t_embedder.mlp.{layer}")
        for part in self.parts:
            for i in (0, 1):
                block = f"{part}.{i}"
                found |= self.attention(f"{block}.attn", f"{block}.attention")
                found |= {f"{block}.feed_forward.linear_{n}": Layer(f"{block}.feed_forward.w{n}") for n in (1, 2, 3)}
                if part != "context_refiner":
                    found[f"{block}.norm1.linear"] = Layer(f"{block}.adaLN_modulation.1")
        return found


class Wan(Family):
    keys = "wan21_i2v_14b"

    def names(self):
        found = {"patch_embedding": Layer("patch_embedding"), "proj_out": Layer("head.head"),
                 "condition_embedder.time_proj": Layer("time_projection.1"),
                 "condition_embedder.image_embedder.ff.net.0.proj": Layer("img_emb.proj.1"),
                 "condition_embedder.image_embedder.ff.net.2": Layer("img_emb.proj.3")}
        for i, layer in ((1, 0), (2, 2)):
            found[f"condition_embedder.time_embedder.linear_{i}"] = Layer(f"time_embedding.{layer}")
            found[f"condition_embedder.text_embedder.linear_{i}"] = Layer(f"text_embedding.{layer}")
        for i in self.blocks("blocks"):
            block = f"blocks.{i}"
            for theirs, ours in (("attn1", "self_attn"), ("attn2", "cross_attn")):
                found |= {f"{block}.{theirs}.to_{x}": Layer(f"{block}.{ours}.{x}") for x in "qkv"}
                found[f"{block}.{theirs}.to_out.0"] = Layer(f"{block}.{ours}.o")
            found |= {f"{block}.attn2.add_{x}_proj": Layer(f"{block}.cross_attn.{x}_img") for x in "kv"}
            found |= {f"{block}.ffn.net.0.proj": Layer(f"{block}.ffn.0"), f"{block}.ffn.net.2": Layer(f"{block}.ffn.2")}
        return found


class Ltx(Family):
    keys = "ltxv_13b"

    def names(self):
        found = {"proj_in": Layer("patchify_proj"), "proj_out": Layer("proj_out"), "time_embed.linear": Layer("adaln_single.linear")}
        for i in (1, 2):
            found[f"time_embed.emb.timestep_embedder.linear_{i}"] = Layer(f"adaln_single.emb.timestep_embedder.linear_{i}")
            found[f"caption_projection.linear_{i}"] = Layer(f"caption_projection.linear_{i}")
        for base in self.linears():
            if base.startswith("transformer_blocks."):
                found[base] = Layer(base)
        return found


class Ltx2(Ltx):
    keys = "ltx2_19b"

    def is_kept(self, name):
        return super().is_kept(name) and "connector" not in name and "text_embedding_projection" not in name

    def names(self):
        found = super().names() | {"audio_proj_in": Layer("audio_patchify_proj"), "audio_proj_out": Layer("audio_proj_out")}
        found |= {f"audio_caption_projection.linear_{i}": Layer(f"audio_caption_projection.linear_{i}") for i in (1, 2)}
        for theirs, ours in (("audio_time_embed", "audio"), ("av_cross_attn_video_scale_shift", "av_ca_video_scale_shift"),
                             ("av_cross_attn_video_a2v_gate", "av_ca_a2v_gate"), ("av_cross_attn_audio_scale_shift", "av_ca_audio_scale_shift"),
                             ("av_cross_attn_audio_v2a_gate", "av_ca_v2a_gate")):
            for part in ("linear", "emb.timestep_embedder.linear_1", "emb.timestep_embedder.linear_2"):
                found[f"{theirs}.{part}"] = Layer(f"{ours}_adaln_single.{part}")
        return found


class Cosmos(Family):
    keys = "cosmos_predict2_2b"

    def names(self):
        found = {"patch_embed.proj": Layer("x_embedder.proj.1"), "proj_out": Layer("final_layer.linear")}
        for i in (1, 2):
            found[f"time_embed.t_embedder.linear_{i}"] = Layer(f"t_embedder.1.linear_{i}")
            found[f"norm_out.linear_{i}"] = Layer(f"final_layer.adaln_modulation.{i}")
        for n in self.blocks("blocks"):
            theirs, ours = f"transformer_blocks.{n}", f"blocks.{n}"
            for attn, name in (("attn1", "self_attn"), ("attn2", "cross_attn")):
                found |= {f"{theirs}.{attn}.to_{x}": Layer(f"{ours}.{name}.{x}_proj") for x in "qkv"}
                found[f"{theirs}.{attn}.to_out.0"] = Layer(f"{ours}.{name}.output_proj")
            found |= {f"{theirs}.ff.net.0.proj": Layer(f"{ours}.mlp.layer1"), f"{theirs}.ff.net.2": Layer(f"{ours}.mlp.layer2")}
            for norm, name in (("norm1", "self_attn"), ("norm2", "cross_attn"), ("norm3", "mlp")):
                found |= {f"{theirs}.{norm}.linear_{i}": Layer(f"{ours}.adaln_modulation_{name}.{i}") for i in (1, 2)}
        return found


class Anima(Cosmos):
    keys = "anima_2b"

    def is_table(self, name):
        return name == "llm_adapter.embed.weight"

    def names(self):
        return super().names() | {base: Layer(base) for base in self.linears() if base.startswith("llm_adapter.")}


class CogVideoX(Family):
    keys = "cogvideox_5b"

    def names(self):
        found = {base: Layer(base) for base in self.linears() if not base.startswith(("blocks.", "time_embedding"))}
        found |= {f"time_embedding.linear_{i}": Layer(f"time_embedding_linear_{i}") for i in (1, 2)}
        theirs = {"q": "attn1.to_q", "k": "attn1.to_k", "v": "attn1.to_v", "attn_out": "attn1.to_out.0", "ff_proj": "ff.net.0.proj", "ff_out": "ff.net.2",
                  "norm1.linear": "norm1.linear", "norm2.linear": "norm2.linear"}
        return found | {f"transformer_blocks.{i}.{name}": Layer(f"blocks.{i}.{base}") for i in self.blocks("blocks") for base, name in theirs.items()}


class SameNames(Family):
    """Diffusers and ComfyUI agree."""

    def names(self):
        return {base: Layer(base) for base in self.linears()}


class QwenImage(SameNames):
    keys = "qwen_image"


class HiDream(SameNames):
    keys = "hidream_i1"


class OmniGen2(SameNames):
    keys = "omnigen2"


class Krea2(Family):
    keys = "krea2"

    def names(self):
        found = {"img_in": Layer("first"), "time_embed.linear_1": Layer("tmlp.0"), "time_embed.linear_2": Layer("tmlp.2"),
                 "time_mod_proj": Layer("tproj.1"), "txt_in.linear_1": Layer("txtmlp.1"), "txt_in.linear_2": Layer("txtmlp.3"),
                 "text_fusion.projector": Layer("txtfusion.projector"), "final_layer.linear": Layer("last.linear")}
        for theirs, ours in (("transformer_blocks", "blocks"), ("text_fusion.layerwise_blocks", "txtfusion.layerwise_blocks"),
                             ("text_fusion.refiner_blocks", "txtfusion.refiner_blocks")):
            for i in (0, 1):
                found |= {f"{theirs}.{i}.attn.to_{x}": Layer(f"{ours}.{i}.attn.w{x}") for x in "qkv"}
                found |= {f"{theirs}.{i}.attn.to_gate": Layer(f"{ours}.{i}.attn.gate"), f"{theirs}.{i}.attn.to_out.0": Layer(f"{ours}.{i}.attn.wo")}
                found |= {f"{theirs}.{i}.ff.{x}": Layer(f"{ours}.{i}.mlp.{x}") for x in ("gate", "up", "down")}
        return found


class Unet(Family):
    """Blocks of diffusers have their residual blocks, attentions and samplers apart; in checkpoints they are in one row."""

    component = "unet"
    extra = {}

    def is_kept(self, name):
        return True

    def names(self):
        found = {"conv_in": Layer("input_blocks.0.0"), "conv_out": Layer("out.2"), "time_embedding.linear_1": Layer("time_embed.0"),
                 "time_embedding.linear_2": Layer("time_embed.2")} | self.extra
        number = 1
        levels = self.levels
        for level in range(levels):
            for i in range(2):
                self.block(found, f"down_blocks.{level}", i, f"input_blocks.{number}")
                number += 1
            if level < levels - 1:
                found[f"down_blocks.{level}.downsamplers.0.conv"] = Layer(f"input_blocks.{number}.0.op")
                number += 1
        for i, part in enumerate((0, 2)):
            self.resnet(found, f"mid_block.resnets.{i}", f"middle_block.{part}")
        self.attention(found, "mid_block.attentions.0", "middle_block.1")
        number = 0
        for level in range(levels):
            for i in range(3):
                self.block(found, f"up_blocks.{level}", i, f"output_blocks.{number}")
                number += 1
            if level < levels - 1:
                last = f"output_blocks.{number - 1}"
                part = 2 if self.has(f"{last}.1.proj_in") else 1
                found[f"up_blocks.{level}.upsamplers.0.conv"] = Layer(f"{last}.{part}.conv")
        return {name: layer for name, layer in found.items() if self.has(layer.base)}

    def block(self, found, theirs, i, ours):
        self.resnet(found, f"{theirs}.resnets.{i}", f"{ours}.0")
        self.attention(found, f"{theirs}.attentions.{i}", f"{ours}.1")

    def resnet(self, found, theirs, ours):
        for name, layer in (("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"), ("conv2", "out_layers.3"), ("conv_shortcut", "skip_connection")):
            found[f"{theirs}.{name}"] = Layer(f"{ours}.{layer}")

    def attention(self, found, theirs, ours):
        for base in self.linears():
            if base.startswith(f"{ours}.") and self.has(f"{ours}.proj_in"):
                found[theirs + base.removeprefix(ours)] = Layer(base)


class Sdxl(Unet):
    keys = "sdxl"
    levels = 3
    shapes = {"label_emb.0.0.weight": [20, 2816]}
    extra = {"add_embedding.linear_1": Layer("label_emb.0.0"), "add_embedding.linear_2": Layer("label_emb.0.2")}


class Sd15(Unet):
    """Written down from its sizes: four levels, two residual blocks in each, attention in all but the innermost."""

    levels = 4
    channels = (320, 640, 1280, 1280)
    shapes = {"input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": [5, 768]}

    def listed(self):
        self.found = {}
        self.add("time_embed.0", 1280, 320)
        self.add("time_embed.2", 1280, 1280)
        self.add("input_blocks.0.0", 320, 4, 3, 3)
        skipped, width, number = [320], 320, 1
        for level, channels in enumerate(self.channels):
            for _ in range(2):
                self.residual(f"input_blocks.{number}", width, channels, level < 3)
                width = channels
                skipped.append(width)
                number += 1
            if level < 3:
                self.add(f"input_blocks.{number}.0.op", width, width, 3, 3)
                skipped.append(width)
                number += 1
        self.add_residual("middle_block.0", width, width)
        self.add_attention("middle_block.1", width)
        self.add_residual("middle_block.2", width, width)
        for level, channels in enumerate(reversed(self.channels)):
            for i in range(3):
                block = f"output_blocks.{3 * level + i}"
                self.residual(block, width + skipped.pop(), channels, level > 0)
                width = channels
                if i == 2 and level < 3:
                    self.add(f"{block}.{2 if level > 0 else 1}.conv", width, width, 3, 3)
        self.add("out.0", width)
        self.add("out.2", 4, width, 3, 3)
        return self.found

    def add(self, base, *shape):
        self.found[f"{base}.weight"] = ("float16", list(shape))

    def residual(self, block, before, after, has_attention):
        self.add_residual(f"{block}.0", before, after)
        if has_attention:
            self.add_attention(f"{block}.1", after)

    def add_residual(self, block, before, after):
        self.add(f"{block}.in_layers.0", before)
        self.add(f"{block}.in_layers.2", after, before, 3, 3)
        self.add(f"{block}.emb_layers.1", after, 1280)
        self.add(f"{block}.out_layers.0", after)
        self.add(f"{block}.out_layers.3", after, after, 3, 3)
        if before != after:
            self.add(f"{block}.skip_connection", after, before, 1, 1)

    def add_attention(self, block, width):
        self.add(f"{block}.norm", width)
        for name in ("proj_in", "proj_out"):
            self.add(f"{block}.{name}", width, width, 1, 1)
        inner = f"{block}.transformer_blocks.0"
        for attention, context in (("attn1", width), ("attn2", 768)):
            for name, columns in (("to_q", width), ("to_k", context), ("to_v", context), ("to_out.0", width)):
                self.add(f"{inner}.{attention}.{name}", width, columns)
        self.add(f"{inner}.ff.net.0.proj", 8 * width, width)
        self.add(f"{inner}.ff.net.2", width, 4 * width)
        for i in (1, 2, 3):
            self.add(f"{inner}.norm{i}", width)


FAMILIES = [Flux1, Chroma, Flux2, HunyuanVideo, HunyuanVideoOfTencent, HunyuanVideo15, Sd3, AuraFlow, PixArt, ZImage, Lumina2, Wan,
            Ltx, Ltx2, Cosmos, Anima, CogVideoX, QwenImage, HiDream, OmniGen2, Krea2, Sdxl, Sd15]
