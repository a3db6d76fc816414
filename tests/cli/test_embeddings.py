"""--embeddings: tables of tokens that are quantized though filters keep them, how they are stored, and what is said of the others."""

import functools
import json
import re
import struct
import unittest

import keys
import torch
from support import TempFolder, qmill as run, qmill_json as run_json, read

# The command's own default filter is one of the things that are tested here.
qmill = functools.partial(run, choose=list)
qmill_json = functools.partial(run_json, run=qmill)

# The tables of tokens of text encoders that ComfyUI loads quantized, by hand.
TABLES = {
    "t5xxl_encoder": ["shared"],
    "umt5xxl_encoder": ["shared"],
    "gemma2_2b": ["model.embed_tokens"],
    "gemma3_12b": ["model.embed_tokens"],
    "gemma4_e4b": ["model.embed_tokens", "model.embed_tokens_per_layer"],
    "gpt_oss_20b": ["embed_tokens"],
    "llama31_8b": ["model.embed_tokens"],
    "ministral3_3b": ["model.embed_tokens"],
    "mistral3_24b": ["model.embed_tokens"],
    "qwen25_vl_7b": ["model.embed_tokens"],
    "qwen35_27b": ["model.language_model.embed_tokens"],
    "qwen3_4b": ["model.embed_tokens"],
    "qwen3_vl_8b": ["model.language_model.embed_tokens"],
}
MARKERS = {"int8": {"format": "int8_tensorwise"}, "fp8": {"format": "float8_e4m3fn"}}

# The models of the tests that store values, and their one table.
SMALL = {"t5xxl_encoder": "shared", "qwen3_4b": "model.embed_tokens"}
ROWS = 300


def small(model):
    """The first two blocks of a real model with fewer rows, which says the same to readers, and normal random values."""
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for name, (dtype, shape) in keys.tensors(model).items():
        block = re.search(r"\.(?:block|layers)\.(\d+)\.", name)
        if block is not None and int(block[1]) > 1:
            continue
        rows = ROWS if name == f"{SMALL[model]}.weight" else min(shape[0], 64) if len(shape) == 2 else shape[0]
        tensors[name] = torch.randn(rows, *shape[1:], generator=generator).to(getattr(torch, dtype))
    tensors[f"{SMALL[model]}.weight"][::7] *= 20  # rows of other sizes
    tensors[f"{SMALL[model]}.weight"][5] = 0
    return tensors


def data_size(path):
    data = path.read_bytes()
    return len(data) - 8 - struct.unpack("<Q", data[:8])[0]


class Stored(TempFolder):
    def convert(self, model, *flags):
        """(tensors of the source, of the output, its path, the report)"""
        tensors = small(model)
        source, out = self.model(tensors), self.folder / f"out{len(self.names())}.safetensors"
        report = qmill_json("convert", source, out, *flags)
        return tensors, read(out)[0], out, report

    def test_int8_is_within_half_a_step_of_the_scale_of_its_row(self):
        for model, table in SMALL.items():
            tensors, stored, _, _ = self.convert(model, "--embeddings", "int8")
            codes, scale = stored[f"{table}.weight"], stored[f"{table}.weight_scale"]
            self.assertEqual((codes.dtype, scale.dtype, list(scale.shape)), (torch.int8, torch.float32, [ROWS, 1]))
            self.assertEqual(json.loads(bytes(stored[f"{table}.comfy_quant"].tolist())), MARKERS["int8"])
            original = tensors[f"{table}.weight"].double()
            error = (codes.double() * scale.double() - original).abs()
            self.assertTrue((error <= scale.double() * 0.50001).all(), model)
            largest = original.abs().amax(1, keepdim=True)
            self.assertTrue(((scale.double() - largest / 127).abs() <= largest * 1e-6)[largest != 0].all(), model)

    def test_fp8_is_the_nearest_float_of_one_scale(self):
        for model, table in SMALL.items():
            tensors, stored, _, _ = self.convert(model, "--embeddings", "fp8")
            codes, scale = stored[f"{table}.weight"], stored[f"{table}.weight_scale"]
            self.assertEqual((codes.dtype, scale.dtype, list(scale.shape)), (torch.float8_e4m3fn, torch.float32, []))
            self.assertEqual(json.loads(bytes(stored[f"{table}.comfy_quant"].tolist())), MARKERS["fp8"])
            original = tensors[f"{table}.weight"].double()
            error = (codes.double() * scale.double() - original).abs()
            half_step = torch.maximum(original.abs() / 16, scale.double() * 2.0**-10)  # of 3 bits behind the first; of numbers below 2^-6
            self.assertTrue((error <= half_step * 1.0001).all(), model)

    def test_the_file_is_smaller_by_just_the_table_and_as_large_as_planned(self):
        for model, table in SMALL.items():
            tensors, plain, before, _ = self.convert(model)
            columns = tensors[f"{table}.weight"].shape[1]
            for form, scales in (("int8", 4 * ROWS), ("fp8", 4)):
                planned = qmill_json("plan", self.folder / "model.safetensors", "--embeddings", form)["output_bytes"]
                _, stored, after, _ = self.convert(model, "--embeddings", form)
                self.assertEqual(after.stat().st_size, planned)
                marker = stored[f"{table}.comfy_quant"].numel()
                self.assertEqual(data_size(before) - data_size(after), ROWS * columns - scales - marker, (model, form))
                for name, tensor in plain.items():
                    if not name.startswith(table):
                        self.assertTrue(torch.equal(tensor, stored[name]), name)

    def test_verify_and_the_summary_agree_about_readers(self):
        for model, table in SMALL.items():
            for form in ("int8", "fp8"):
                _, _, out, report = self.convert(model, "--embeddings", form)
                verified = qmill_json("verify", out)
                self.assertIs(verified["readers"][0]["loads"], True, verified)
                self.assertEqual({finding["rule"] for finding in verified["findings"]} - {"tokenizer"}, {"quantized-embedding"})
                self.assertEqual(report["warnings"], [])
                output, _ = qmill("convert", self.folder / "model.safetensors", out, "--overwrite", "--embeddings", form)
                since = "0.30.0" if form == "int8" else "0.27.0"  # the other layers are int8
                self.assertEqual(verified["readers"][0]["since"], since)
                self.assertIn(f"readers    ComfyUI {since} or newer", output)

    def test_it_is_plain_rounding_whatever_the_run_does(self):
        rows = self.model({f"model.{layer}.input": torch.randn(64, 2560) for layer in ("layers.0.self_attn.q_proj", "embed_tokens")}, "rows.safetensors")
        expected = self.convert("qwen3_4b", "--embeddings", "int8")[1]
        for flags in (["--calibration-data", rows], ["--scaling-mode", "tensor"], ["--convrot", "16"], ["--block-size", "32"], ["--fp16"],
                      ["--format", "int4"], ["--filter", "none"]):
            _, stored, _, report = self.convert("qwen3_4b", "--embeddings", "int8", *flags)
            for name in ("weight", "weight_scale", "comfy_quant"):
                self.assertTrue(torch.equal(stored[f"model.embed_tokens.{name}"], expected[f"model.embed_tokens.{name}"]), flags)
            layer = next(layer for layer in report["layers"] if layer["name"] == "model.embed_tokens")
            self.assertEqual(layer["quantizer"], "rtn")

    def test_it_is_recorded_and_off_is_the_default(self):
        source = self.model(small("qwen3_4b"))
        for flags, recorded in (([], {"filter": "auto"}), (["--embeddings", "off"], {"filter": "auto"}),
                                (["--embeddings", "fp8"], {"filter": "auto", "embeddings": "fp8"})):
            out = self.folder / f"{'_'.join(flags)}.safetensors"
            qmill("convert", source, out, *flags)
            tensors, metadata = read(out)
            options = json.loads(metadata["qmill.options"])
            self.assertEqual(options.get("embeddings"), recorded.get("embeddings"))
            self.assertEqual(tensors["model.embed_tokens.weight"].dtype, torch.float8_e4m3fn if "fp8" in flags else torch.bfloat16)


class Planned(TempFolder):
    """Real models: their plans read headers only."""

    def header(self, *models, name="model.safetensors"):
        path, tensors = self.folder / name, {}
        for model, prefix in models:
            tensors |= {prefix + key: value for key, value in keys.tensors(model).items()}
        keys.write(path, tensors)
        return path, tensors

    def plan(self, path, *flags):
        plan = qmill_json("plan", path, "-o", self.folder / "out.safetensors", *flags)
        return plan, {layer["name"]: layer for layer in plan["layers"]}

    def test_every_text_encoder_that_is_loaded_quantized(self):
        for model, expected in TABLES.items():
            path, tensors = self.header((model, ""))
            plain, layers = self.plan(path)
            for table in expected:
                self.assertEqual((layers[table]["action"], layers[table]["rule"]), ("copy", "filter"), model)
            for form in ("int8", "fp8"):
                plan, layers = self.plan(path, "--embeddings", form)
                found = [name for name, layer in layers.items() if layer["rule"] == "embeddings"]
                self.assertEqual(found, expected, model)
                self.assertTrue(all(layers[name]["format"] == MARKERS[form]["format"] for name in found))
                self.assertIs(plan["comfyui"]["loads"], True)
                shapes = [tensors[f"{table}.weight"][1] for table in expected]
                saved = sum(rows * columns - (4 * rows if form == "int8" else 4) for rows, columns in shapes)
                self.assertLess(abs(plain["output_bytes"] - plan["output_bytes"] - saved), 1 << 14, model)  # the marker, and the header
                self.assertFalse([warning for warning in plan["warnings"] if "embeddings" in warning], model)

    def test_the_text_shows_the_rule(self):
        path, _ = self.header(("qwen3_4b", ""))
        output, _ = qmill("plan", path, "--embeddings", "int8")
        line = next(line for line in output.splitlines() if "embed_tokens" in line)
        self.assertTrue(line.startswith("quantize  int8 row (rtn)"), line)
        self.assertTrue(line.endswith("[embeddings: a table of tokens]"), line)

    def test_of_a_checkpoint_the_parts_are_told_apart(self):
        path, _ = self.header(("flux1_dev", "model.diffusion_model."), ("t5xxl_encoder", "text_encoders.t5xxl.transformer."),
                              ("clip_l", "text_encoders.clip_l.transformer."))
        plan, layers = self.plan(path, "--embeddings", "int8")
        found = [name for name, layer in layers.items() if layer["rule"] == "embeddings"]
        self.assertEqual(found, ["text_encoders.t5xxl.transformer.shared"])
        said = [remark for remark in plan["remarks"] if "--embeddings" in remark]
        self.assertEqual(len(said), 1, plan["remarks"])
        self.assertIn("--embeddings leaves 3 tables to the other rules: 1 in the CLIP-L text encoder, as ComfyUI loads it without", said[0])
        self.assertIn("2 of positions or kinds", said[0])
        self.assertNotEqual(layers["text_encoders.clip_l.transformer.text_model.embeddings.token_embedding"]["action"], "quantize")

        plan, layers = self.plan(path, "--embeddings", "int8", "--target", "any")
        self.assertEqual(layers["text_encoders.clip_l.transformer.text_model.embeddings.token_embedding"]["rule"], "embeddings")
        self.assertIs(plan["comfyui"]["loads"], False)

    def test_without_a_table_it_warns(self):
        path, _ = self.header(("flux1_dev", ""))
        plan, _ = self.plan(path, "--embeddings", "int8")
        self.assertIn("--embeddings decided about no tensor", plan["warnings"])
        self.assertNotIn("--embeddings decided about no tensor", self.plan(path)[0]["warnings"])

    def test_of_an_unknown_model_no_table_is_taken(self):
        path = self.model({"embed_tokens.weight": torch.randn(64, 64), **{f"body.{i}.q.weight": torch.randn(64, 64) for i in range(2)}})
        plan, layers = self.plan(path, "--embeddings", "int8")
        self.assertEqual((layers["embed_tokens"]["action"], layers["embed_tokens"]["rule"]), ("copy", "filter"))
        self.assertIn("--embeddings decided about no tensor", plan["warnings"])
        self.assertIn("leaves 1 table to the other rules: 1 in the model, as its architecture is not recognised", " ".join(plan["remarks"]))
        self.assertEqual(self.plan(path, "--embeddings", "int8", "--target", "any")[1]["embed_tokens"]["rule"], "embeddings")

    def test_the_names_of_another_program_are_given_first(self):
        tensors = {"token_embd.weight": torch.randn(64, 4096), "enc.output_norm.weight": torch.ones(4096),
                   "enc.blk.0.attn_rel_b.weight": torch.randn(32, 8)}
        for i in range(2):
            tensors |= {f"enc.blk.{i}.{name}.weight": torch.randn(64, 4096)
                        for name in ("attn_q", "attn_k", "attn_v", "attn_o", "ffn_gate", "ffn_up", "ffn_down")}
            tensors |= {f"enc.blk.{i}.{name}.weight": torch.ones(4096) for name in ("attn_norm", "ffn_norm")}
        path = self.model(tensors)
        self.assertEqual(self.plan(path, "--embeddings", "int8", "--rename")[1]["shared"]["rule"], "embeddings")
        plan, layers = self.plan(path, "--embeddings", "int8")
        self.assertNotEqual(layers["token_embd"]["rule"], "embeddings")
        self.assertIn("its tensors have names that ComfyUI does not look for; --rename gives them", " ".join(plan["remarks"]))

    def test_choices_of_a_person_come_first(self):
        path, _ = self.header(("qwen3_4b", ""))
        config = self.folder / "layers.json"
        config.write_text(json.dumps({"embed_tokens": {"format": "fp16"}}))
        for flags, rule, form in ((["--exclude-layers", "embed_tokens"], "exclude", None),
                                  (["--custom-layers", "embed_tokens", "--custom-type", "fp16"], "custom", "fp16"),
                                  (["--layer-config", config], "layer_config", "fp16")):
            plan, layers = self.plan(path, "--embeddings", "int8", *flags)
            self.assertEqual((layers["model.embed_tokens"]["rule"], layers["model.embed_tokens"]["format"]), (rule, form))
            self.assertIn("--embeddings decided about no tensor", plan["warnings"])

    def test_a_wrong_value_is_refused(self):
        path, _ = self.header(("qwen3_4b", ""))
        self.refused("plan", path, "--embeddings", "int4", status=2, choose=list, says=["--embeddings is 'int4'", "int8, fp8, off"])


if __name__ == "__main__":
    unittest.main()
