"""Models that other tools quantized: refused by name, with nothing written."""

import json

import torch

from support import TempFolder, qmill, qmill_json

D = 64


def ints(*shape, dtype=torch.uint8):
    return torch.ones(*shape, dtype=dtype)


def state(kind):
    return torch.tensor(list(json.dumps({"quant_type": kind, "blocksize": 64}).encode()), dtype=torch.uint8)


# What a layer 'l' becomes, by the tool that must be named.
LAYERS = {
    "bitsandbytes (nf4)": {"l.weight": ints(D * D // 2, 1), "l.weight.absmax": torch.ones(D), "l.weight.quant_map": torch.ones(16),
                           "l.weight.quant_state.bitsandbytes__nf4": state("nf4")},
    "bitsandbytes (fp4)": {"l.weight": ints(D * D // 2, 1), "l.weight.absmax": ints(D), "l.weight.nested_absmax": torch.ones(1),
                           "l.weight.nested_quant_map": torch.ones(256), "l.weight.quant_map": torch.ones(16),
                           "l.weight.quant_state.bitsandbytes__fp4": state("fp4")},
    "bitsandbytes (4 bits)": {"l.weight": ints(D * D // 2, 1), "l.weight.absmax": torch.ones(D), "l.weight.quant_map": torch.ones(16)},
    "bitsandbytes (int8)": {"l.weight": ints(D, D, dtype=torch.int8), "l.SCB": torch.ones(D), "l.weight_format": ints(1)},
    "quanto": {"l.weight._data": ints(D, D, dtype=torch.int8), "l.weight._scale": torch.ones(D, 1).bfloat16(), "l.input_scale": torch.ones(())},
    "quanto ": {"l.weight._data._data": ints(D // 2, D), "l.weight._scale": torch.ones(D, 1), "l.weight._shift": torch.ones(D, 1)},
    "quanto  ": {"l.weight._data": torch.ones(D, D).to(torch.float8_e4m3fn), "l.weight._scale": torch.ones(())},
    "GPTQ": {"l.qweight": ints(D // 8, D, dtype=torch.int32), "l.qzeros": ints(1, D // 8, dtype=torch.int32), "l.scales": torch.ones(1, D).half(),
             "l.g_idx": torch.zeros(D, dtype=torch.int32)},
    "AWQ": {"l.qweight": ints(D, D // 8, dtype=torch.int32), "l.qzeros": ints(1, D // 8, dtype=torch.int32), "l.scales": torch.ones(1, D).half()},
    "compressed-tensors": {"l.weight_packed": ints(D, D // 8, dtype=torch.int32), "l.weight_scale": torch.ones(D, 1).bfloat16(),
                           "l.weight_shape": torch.tensor([D, D])},
    "compressed-tensors ": {"l.weight_packed": ints(D, D // 2), "l.weight_scale": torch.ones(D, 4).to(torch.float8_e4m3fn),
                            "l.weight_global_scale": torch.ones(1)},
    "HQQ": {"l.W_q": ints(D // 2, D), "l.scale": torch.ones(D, 1).half(), "l.zero": torch.ones(D, 1).half(), "l.nbits": torch.tensor(4)},
    "SVDQuant": {"l.qweight": ints(D, D // 2, dtype=torch.int8), "l.wscales": torch.ones(1, D).bfloat16(), "l.smooth_factor": torch.ones(D).bfloat16(),
                 "l.proj_down": torch.ones(D, 32).bfloat16(), "l.proj_up": torch.ones(D, 32).bfloat16()},
    "SVDQuant ": {"l.qweight": ints(D, D // 2, dtype=torch.int8), "l.wscales": torch.ones(1, D).bfloat16(), "l.smooth": torch.ones(D).bfloat16(),
                  "l.lora_down": torch.ones(D, 32).bfloat16(), "l.lora_up": torch.ones(D, 32).bfloat16()},
    "torchao": {"l._weight_qdata": torch.ones(D, D).to(torch.float8_e4m3fn), "l._weight_scale": torch.ones(D, 1)},
    "EXL2": {"l.q_weight": ints(D // 8, D, dtype=torch.int32), "l.q_scale": ints(2, D // 8, dtype=torch.int32), "l.q_scale_max": torch.ones(2).half(),
             "l.q_groups": ints(4, dtype=torch.int16), "l.q_invperm": ints(D, dtype=torch.int32)},
    "EXL3": {"l.trellis": ints(4, 4, 64, dtype=torch.int16), "l.suh": torch.ones(D).half(), "l.svh": torch.ones(D).half()},
    "AQLM": {"l.codes": ints(D, D // 8, 1, dtype=torch.int16), "l.codebooks": torch.ones(1, 256, 1, 8).half(), "l.scales": torch.ones(D, 1, 1, 1).half()},
    "MLX": {"l.weight": ints(D, D // 8, dtype=torch.uint32), "l.scales": torch.ones(D, 1).bfloat16(), "l.biases": torch.ones(D, 1).bfloat16()},
    "OpenAI's MXFP4": {"l_blocks": ints(D, 2, 16), "l_scales": ints(D, 2)},
    "DFloat11": {"l.encoded_exponent": ints(D * D), "l.sign_mantissa": ints(D * D), "l.gaps": ints(8)},
    "SDNQ": {"l.weight": ints(D, D, dtype=torch.int8), "l.scale": torch.ones(D, 1)},
    "a tool that packs integers": {"l.qweight": ints(D, D // 4, dtype=torch.int32), "l.weight_scales": torch.ones(D).half()},
}


class OtherTools(TempFolder):
    def with_floats(self, layer):
        return self.model({"head.weight": torch.ones(D, 256).bfloat16(), "norm.weight": torch.ones(D), **layer})

    def test_they_are_refused_by_name(self):
        for tool, layer in LAYERS.items():
            with self.subTest(tool):
                source = self.with_floats(layer)
                for words in (("-i", source), ("plan", source), ("-i", source, "--dequantize-source"), ("dequantize", source)):
                    self.refused(*words, says=("model.safetensors", "quantized already", f"by {tool.strip()}", "'l", "unquantized"))

    def test_verify_and_inspect_name_them(self):
        for tool, layer in LAYERS.items():
            with self.subTest(tool):
                source = self.with_floats(layer)
                findings = json.loads(qmill("verify", source, "--json", status=1)[0])["findings"]
                self.assertEqual([finding["rule"] for finding in findings if finding["level"] == "error"], ["other-quantizer"])
                self.assertIn(tool.strip(), findings[0]["text"])
                self.assertIn(findings[0]["tensor"], layer)
                self.assertIn(tool.strip(), qmill_json("inspect", source)["quantized_by"])
                self.assertIn("quantized by", qmill("inspect", source)[0])

    def test_floating_models_with_similar_names_are_not_taken_for_theirs(self):
        source = self.model({"l.weight": torch.ones(D, 256), "l.scale": torch.ones(D), "l.scales": torch.ones(D), "l.zero": torch.ones(1), "l.meta": torch.ones(1),
                             "l._data": torch.ones(D, D), "l._scale": torch.ones(1), "l.smooth": torch.ones(D), "l.codes": torch.ones(D, D), "l.codebooks": torch.ones(D, D),
                             "position_ids": torch.arange(8)[None]})
        self.assertIsNone(qmill_json("inspect", source)["quantized_by"])
        qmill("-i", source)

    def test_whole_numbers_as_weights_are_codes(self):
        for dtype in (torch.int8, torch.uint8, torch.int32, torch.int64):
            source = self.with_floats({"l.weight": ints(D, D, dtype=dtype)})
            self.assertTrue(any("1 weight is of whole numbers" in line and "l.weight" in line for line in qmill_json("plan", source)["warnings"]))
            findings = json.loads(qmill("verify", source, "--json", status=1)[0])["findings"]
            self.assertEqual([(finding["rule"], finding["tensor"]) for finding in findings], [("unmarked-codes", "l.weight"), ("model-part", "")])
        self.assertEqual(qmill_json("plan", self.with_floats({"position_ids": torch.arange(D * D).reshape(D, D)}))["warnings"], [])
