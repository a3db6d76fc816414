"""The documented API, as its page says it: the code on the page runs, and signatures are those of the page.

The page is tests/data/documented_api.txt: the documented API of `convert_to_quant`, which this project keeps. The
layout of that text was lost: lines of code have no indentation, tables have line ends inside their rows, and what
follows a piece of code is in the code's last line. `code_blocks` finds the code again:

- A block begins at a line `from MODULE import ...`, or with a `{` that follows a block (this one is JSON).
- A block ends before the next one, or inside a line where something that is no code follows without a space: a capital
  letter, `|` or `{` after a closing bracket, or, in a comment, `|` or a new sentence after a letter.
- The lines after a line `with ...:` are its body until the block ends, and are indented.

Nothing else of the code is changed.
"""

import ast
import contextlib
import importlib
import inspect
import io
import json
import logging
import os
import re
import unittest
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from support import SOURCE, FolderTest

PAGE = SOURCE / "tests" / "data" / "documented_api.txt"

FIRST = re.compile(r"from [\w.]+ import ")
END = re.compile(r"(?<=[)\]}])(?=[A-Z|]|\{$)|(?<=[A-Za-z])(?=\| )|(?<=[a-z])(?=[A-Z][a-z]+ \w+ )")


def code_blocks(page):
    """The blocks in order, as texts."""
    blocks, current = [], None
    for line in page.splitlines():
        if FIRST.match(line):
            blocks.append(current := [])
        if current is None:
            continue
        end = END.search(line)
        current.append(line[: end.start()] if end else line)
        if end:
            current = None
            if line[end.start() :] == "{":
                blocks.append(current := ["{"])
    return ["\n".join(indented(block)) for block in blocks]


def indented(lines):
    inside = False
    for line in lines:
        yield "    " + line if inside else line
        inside = inside or re.fullmatch(r"with .*:", line) is not None


def table(page, *header):
    """The rows of the table with this header that comes next in `page`, as lists of cells."""
    _, found, rest = page.partition("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|\n")
    assert found, header
    cells, rows = [], []
    for line in rest.splitlines():
        if "|" not in line and not cells:
            break
        if FIRST.match(line):
            break
        *parts, last = line.split("|")
        cells += [part.strip() for part in parts]
        if last.strip():
            cells.append(last.strip())
        if len(cells) >= len(header):
            rows.append(cells)
            cells = []
    return rows


def call_in(block, name):
    """The keyword arguments of the call of `name` in this block, by name, in order."""
    calls = [
        node
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name
    ]
    assert len(calls) == 1, name
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in calls[0].keywords}


def parameters(callable_):
    """Name -> default of the parameters, without self."""
    found = inspect.signature(callable_).parameters.values()
    return {parameter.name: parameter.default for parameter in found if parameter.name != "self"}


TEXT = PAGE.read_text()
DECLARATION, *BLOCKS = code_blocks(TEXT)


def block_of(name):
    """The only block that imports or uses this name first."""
    return next(block for block in BLOCKS if name in block)


class ThePage(unittest.TestCase):
    def test_all_code_is_found(self):
        self.assertEqual(len(BLOCKS), 15)
        self.assertEqual(TEXT.count("\nfrom "), 1 + 14)  # one block is JSON
        for block in BLOCKS:
            json.loads(block) if block.startswith("{") else compile(block, "block", "exec")

    def test_nothing_but_indentation_is_changed(self):
        for block in BLOCKS:
            self.assertIn("\n".join(line.strip() for line in block.splitlines()), TEXT)


class Signatures(unittest.TestCase):
    def test_convert_to_int8(self):
        from convert_to_quant.quantization import convert_to_int8

        imported, declaration = DECLARATION.split("\n", 1)
        self.assertEqual(imported, "from convert_to_quant.quantization import convert_to_int8")
        declared = ast.parse(f"def {declaration}: ...").body[0].args
        found = inspect.signature(convert_to_int8).parameters
        names = [argument.arg for argument in declared.args]
        self.assertEqual(len(names), 50)
        self.assertEqual(list(found), [*names, declared.kwarg.arg])
        self.assertEqual(found["converter_kwargs"].kind, inspect.Parameter.VAR_KEYWORD)
        required = len(names) - len(declared.defaults)
        self.assertEqual(required, 6)
        for name, argument, default in zip(names, declared.args, [None] * required + declared.defaults, strict=True):
            self.assertEqual(found[name].kind, inspect.Parameter.POSITIONAL_OR_KEYWORD, name)
            self.assertEqual(found[name].annotation, ast.unparse(argument.annotation), name)
            expected = inspect.Parameter.empty if default is None else ast.literal_eval(default)
            self.assertEqual(found[name].default, expected, name)

    def test_the_table_of_convert_to_int8(self):
        from convert_to_quant.quantization import convert_to_int8

        found = inspect.signature(convert_to_int8).parameters
        rows = table(TEXT, "Parameter", "Type", "Default", "Description")
        self.assertEqual([row[0] for row in rows], [name for name in found if name != "converter_kwargs"])
        for name, _, default, _ in rows:
            expected = inspect.Parameter.empty if default == "required" else ast.literal_eval(default)
            self.assertEqual(found[name].default, expected, name)

    def test_converters(self):
        for module, name in (
            ("quip_int8", "QuIPInt8Converter"),
            ("learned_rounding", "LearnedRoundingConverter"),
            ("gptq_int8", "GPTQInt8Converter"),
        ):
            block = block_of(name)
            self.assertIn(f"from convert_to_quant.converters.{module} import {name}\n", block)
            found = getattr(importlib.import_module(f"convert_to_quant.converters.{module}"), name)
            documented = call_in(block, name)
            self.assertEqual(parameters(found), documented)
            self.assertEqual(list(parameters(found)), list(documented))

    def test_the_table_of_quip(self):
        from convert_to_quant.converters.quip_int8 import QuIPInt8Converter

        rows = table(TEXT[TEXT.index("QuIP optimizer class") :], "Parameter", "Type", "Default", "Description")
        documented = {name: ast.literal_eval(default) for name, _, default, _ in rows}
        self.assertEqual(len(documented), 16)
        self.assertEqual(parameters(QuIPInt8Converter), documented)

    def test_convert_of_converters(self):
        from convert_to_quant.converters.gptq_int8 import GPTQInt8Converter
        from convert_to_quant.converters.learned_rounding import LearnedRoundingConverter
        from convert_to_quant.converters.quip_int8 import QuIPInt8Converter

        required = inspect.Parameter.empty
        expected = {
            QuIPInt8Converter: {"weight_tensor": required, **call_in(block_of("QuIPInt8Converter"), "convert")},
            LearnedRoundingConverter: {
                "weight_tensor": required,
                **call_in(block_of("LearnedRoundingConverter"), "convert"),
            },
            GPTQInt8Converter: {"weight_tensor": required, "H": None},
        }
        for converter, documented in expected.items():
            self.assertEqual(parameters(converter.convert), documented)
            self.assertEqual(list(parameters(converter.convert)), list(documented))

    def test_the_loader(self):
        from convert_to_quant.utils.memory_efficient_loader import UnifiedSafetensorsLoader

        self.assertEqual(list(parameters(UnifiedSafetensorsLoader)), ["path", "low_memory"])
        methods = [row[0] for row in table(TEXT, "Method", "Returns", "Description")]
        self.assertEqual(len(methods), 7)
        for method in methods:
            name, arguments = re.fullmatch(r"(\w+)\((\w*)\)", method).groups()
            self.assertEqual(",".join(parameters(getattr(UnifiedSafetensorsLoader, name))), arguments)

    def test_functions_and_the_reporter(self):
        from convert_to_quant.config.layer_config import load_layer_config
        from convert_to_quant.utils import tensor_utils
        from convert_to_quant.utils.logging import setup_logging
        from convert_to_quant.utils.quality_metrics import QualityReporter

        required = inspect.Parameter.empty
        merge = {
            "weight_tensor": required,
            "lora_A": required,
            "lora_B": required,
            "alpha": required,
            "rank": required,
            "scale": 1.0,
        }
        self.assertEqual(parameters(tensor_utils.merge_lora_into_weight), merge)
        self.assertEqual(list(parameters(tensor_utils.merge_lora_into_weight)), list(merge))
        self.assertEqual(
            parameters(tensor_utils.merge_multiple_loras), {"weight_tensor": required, "lora_configs": required}
        )
        self.assertEqual(parameters(QualityReporter), {"threshold": 30.0})
        names = ["layer_name", "original_tensor", "dequantized_tensor"]
        self.assertEqual(parameters(QualityReporter.add_layer), dict.fromkeys(names, required))
        self.assertEqual(parameters(QualityReporter.get_report_string), {})
        for function in (tensor_utils.load_lora_tensors, tensor_utils.load_lora_for_merging, load_layer_config):
            self.assertEqual(parameters(function), {"path": required})
        self.assertEqual(parameters(setup_logging), {"level": required})


def weights(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Examples(FolderTest):
    """Each block of the page runs as it is. What it does not define is in `names`, and its files are in the current
    folder.
    """

    def setUp(self):
        super().setUp()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        self.original = {
            "layer.weight": weights(1, 64, 256).bfloat16(),
            "block.attention.q.weight": weights(2, 64, 128).bfloat16(),
            "final_layer.weight": weights(3, 16, 64).bfloat16(),
        }
        for name in ("model.safetensors", "base_model.safetensors"):
            save_file(self.original, name, metadata={"author": "somebody"})
        self.lora = {
            "layer.lora_A.weight": weights(4, 4, 256),
            "layer.lora_B.weight": weights(5, 64, 4),
            "layer.alpha": torch.tensor(2.0),
        }
        for name in ("lora.safetensors", "style_lora.safetensors"):
            save_file(self.lora, name)
        self.names = {}

    def run_block(self, name, **given):
        """Runs the first block with `name` in it; returns what it printed."""
        self.names.update(given)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(block_of(name), f"the block with {name}", "exec"), self.names)
        return printed.getvalue()

    def read(self, path):
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()

    def assert_close(self, found, expected, part):
        error = (found.double() - expected.double()).norm() / expected.double().norm()
        self.assertLess(error.item(), part)

    def test_convert_to_int8(self):
        self.run_block("# Basic INT8 quantization")
        plain, metadata = self.read("model_int8.safetensors")
        self.assertEqual(plain["layer.weight"].dtype, torch.int8)
        self.assertIn("layer.comfy_quant", plain)
        self.assertEqual(metadata["author"], "somebody")
        self.assertEqual(metadata["qmill.seed"], "42")
        merged, metadata = self.read("quantized_model.safetensors")
        self.assertEqual(metadata["qmill.quantizer"], "quip")
        source = self.original["block.attention.q.weight"].float()
        self.assert_close(merged["block.attention.q.weight"] * merged["block.attention.q.weight_scale"], source, 0.02)
        self.assertFalse(torch.equal(merged["layer.weight_scale"], plain["layer.weight_scale"]))  # the LoRA is in it

    def test_the_loader(self):
        self.run_block("UnifiedSafetensorsLoader")
        self.assertEqual(sorted(self.names["keys"]), sorted(self.original))
        self.assertEqual(self.names["metadata"], {"author": "somebody"})
        self.assertEqual(self.names["shape"], (64, 256))
        self.assertTrue(torch.equal(self.names["tensor"], self.original["layer.weight"]))
        with self.assertRaisesRegex(ValueError, "closed"):
            self.names["loader"].keys()

    def test_converters(self):
        weight = weights(6, 256, 256)
        rows = weights(7, 600, 32) @ weights(8, 32, 256) + 0.1 * weights(9, 600, 256)
        hessian = rows.T @ rows
        for name in ("QuIPInt8Converter", "LearnedRoundingConverter", "GPTQInt8Converter"):
            with self.subTest(name):
                self.run_block(name, weight_tensor=weight, hessian_matrix=hessian)
                q, scale, dequantized = (self.names[part] for part in ("q_tensor", "scale", "dequantized"))
                self.assertEqual((q.dtype, q.shape), (torch.int8, weight.shape))
                self.assertEqual(scale.shape, (2, 2) if name == "LearnedRoundingConverter" else (256, 1))
                self.assert_close(dequantized, weight, 0.02)

    def test_the_quality_reporter(self):
        original = weights(6, 32, 64)
        printed = self.run_block(
            "QualityReporter", original_tensor=original, dequantized_tensor=original + 0.01 * weights(7, 32, 64)
        )
        self.assertIn("layer_name", printed)
        self.assertEqual(printed.strip(), self.names["report"].strip())

    def test_load_lora_tensors(self):
        self.run_block("load_lora_tensors")
        self.assertEqual(list(self.names["lora_tensors"]), ["layer"])
        self.assertTrue(torch.equal(self.names["lora_tensors"]["layer"], self.lora["layer.lora_A.weight"]))

    def test_load_lora_for_merging(self):
        self.run_block("load_lora_for_merging")
        self.assertEqual(list(self.names["lora_data"]), ["layer"])
        layer = self.names["lora_data"]["layer"]
        self.assertEqual(list(layer), ["lora_A", "lora_B", "alpha", "rank"])
        self.assertTrue(torch.equal(layer["lora_A"], self.lora["layer.lora_A.weight"]))
        self.assertTrue(torch.equal(layer["lora_B"], self.lora["layer.lora_B.weight"]))
        self.assertEqual((layer["alpha"], layer["rank"]), (2.0, 4))

    def test_merge_lora_into_weight(self):
        weight, a, b = weights(1, 16, 24), weights(2, 4, 24), weights(3, 16, 4)
        self.run_block("merge_lora_into_weight", weight_tensor=weight, lora_A=a, lora_B=b, alpha=2.0, rank=4)
        self.assert_close(self.names["merged_weight"], weight.double() + b.double() @ a.double() / 2, 1e-6)

    def test_merge_multiple_loras(self):
        weight = weights(1, 16, 24)
        first = {"a1": weights(2, 4, 24), "b1": weights(3, 16, 4), "alpha1": 2.0, "r1": 4}
        second = {"a2": weights(4, 2, 24), "b2": weights(5, 16, 2), "alpha2": 2.0, "r2": 2}
        self.run_block("merge_multiple_loras", weight_tensor=weight, **first, **second)
        change = first["b1"].double() @ first["a1"].double() / 2 + second["b2"].double() @ second["a2"].double() * 0.9
        self.assert_close(self.names["merged_weight"], weight.double() + change, 1e-6)

    def test_layer_config(self):
        Path("layer_config.json").write_text(next(block for block in BLOCKS if block.startswith("{")))
        from convert_to_quant.quantization import convert_to_int8

        self.run_block("load_layer_config", convert_to_int8=convert_to_int8)  # imported by another block of the page
        tensors, _ = self.read("output.safetensors")
        self.assertEqual(tensors["block.attention.q.weight_scale"].shape, (1, 2))  # tiles of 64
        self.assertEqual(tensors["final_layer.weight"].dtype, torch.float16)
        self.assertEqual(tensors["layer.weight"].dtype, torch.int8)

    def test_constants(self):
        self.run_block("TARGET_INT8_DTYPE")
        names = [
            self.names[name] for name in ("TARGET_INT8_DTYPE", "COMPUTE_DTYPE", "SCALE_DTYPE", "INT8_SYMMETRIC_MAX")
        ]
        self.assertEqual(names, [torch.int8, torch.float32, torch.float32, 127])
        self.assertIn("t5xxl", self.names["MODEL_FILTERS"])

    def test_setup_logging(self):
        logger = logging.getLogger("qmill")
        before = logger.level, list(logger.handlers)
        self.addCleanup(lambda: (logger.setLevel(before[0]), setattr(logger, "handlers", before[1])))
        self.run_block("setup_logging")
        self.addCleanup(self.names["setup_logging"], "NORMAL")
        self.assertTrue(logger.isEnabledFor(logging.DEBUG))

    def test_type_annotations(self):
        from convert_to_quant import constants

        self.run_block("WeightTensor")
        for name in ("WeightTensor", "ScaleTensor", "HessianMatrix", "FilterFlags", "LayerConfig"):
            self.assertEqual(getattr(constants, name), self.names[name])


if __name__ == "__main__":
    unittest.main()
