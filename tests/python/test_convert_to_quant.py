"""What the package `convert_to_quant` does: every parameter, against the command, and against arithmetic that is not
qmill's."""

import contextlib
import dataclasses
import inspect
import io
import json
import logging
import math
import os
import re
import struct
import tempfile
import typing
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from convert_to_quant.config.layer_config import load_layer_config
from convert_to_quant.constants import MODEL_FILTERS
from convert_to_quant.converters.gptq_int8 import GPTQInt8Converter
from convert_to_quant.converters.learned_rounding import LearnedRoundingConverter
from convert_to_quant.converters.quip_int8 import QuIPInt8Converter
from convert_to_quant.quantization import convert_to_int8
from convert_to_quant.utils.logging import setup_logging
from convert_to_quant.utils.memory_efficient_loader import UnifiedSafetensorsLoader
from convert_to_quant.utils.quality_metrics import QualityReporter
from convert_to_quant.utils.tensor_utils import (
    load_lora_for_merging,
    load_lora_tensors,
    merge_lora_into_weight,
    merge_multiple_loras,
)
from qmill.errors import FileError, InputError, NumericError, QmillError, UnsupportedError, UsageError
from safetensors import safe_open
from safetensors.torch import save_file

from support import SOURCE, FolderTest, run_command


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(seed, rows, columns):
    """Inputs as real layers have them: a few directions hold most of them. Every seed has the same directions."""
    return draw(seed, rows, columns // 8) @ draw(columns, columns // 8, columns) + 0.1 * draw(seed + 1, rows, columns)


def read(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def same(first, second):
    """Whether both files have the same tensors."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )


class InFolder(FolderTest):
    def save(self, name, tensors, metadata=None):
        path = self.folder / name
        save_file(tensors, path, metadata=metadata)
        return str(path)

    def refused(self, kind, *says):
        """The body raises an error of this kind that says all this in one line."""
        return Refused(self, kind, says)


class Refused(contextlib.AbstractContextManager):
    def __init__(self, test, kind, says):
        self.test, self.kind, self.says = test, kind, says

    def __exit__(self, kind, error, trace):
        self.test.assertIsInstance(error, self.kind)
        for part in self.says:
            self.test.assertIn(part, str(error))
        self.test.assertNotIn("Traceback", str(error))
        return True


@dataclasses.dataclass
class Case:
    """Parameters with a value that is not the default, and the flags that say the same."""

    parameters: dict
    flags: list
    context: str = "plain"  # of CONTEXTS: what both sides have besides
    changes: str = "tensors"  # or "header", or "nothing"
    command_differs_in: str = ""  # "header": where the two record the source of a value differently


# What a parameter needs to mean something. {folder} is the folder of the files.
CONTEXTS = {
    "plain": ({}, []),
    "legacy": ({"comfy_quant": False}, ["--no-comfy-quant"]),
    "heur": ({"skip_inefficient_layers": True}, ["--heur"]),
    "custom": ({"custom_layers": "^a", "custom_type": "int8"}, ["--custom-layers=^a", "--custom-type=int8"]),
    "custom thin": ({"custom_layers": "thin", "custom_type": "int8"}, ["--custom-layers=thin", "--custom-type=int8"]),
    "excluded": ({"exclude_layers": "^a"}, ["--exclude-layers=^a"]),
    "fallback": ({"exclude_layers": "^a", "fallback": "int8"}, ["--exclude-layers=^a", "--fallback=int8"]),
    "rows": ({"calibration_data_path": "{folder}/rows.safetensors"}, ["--calibration-data={folder}/rows.safetensors"]),
    "channels": (
        {"calibration_data_path": "{folder}/channels.safetensors", "optimizer": "gptq"},
        ["--calibration-data={folder}/channels.safetensors", "--optimizer=gptq"],
    ),
    "smoothquant": (
        {"calibration_data_path": "{folder}/channels.safetensors", "optimizer": "gptq", "smoothquant": True},
        ["--calibration-data={folder}/channels.safetensors", "--optimizer=gptq", "--smoothquant"],
    ),
    "no data gptq": ({"optimizer": "gptq"}, ["--optimizer=gptq"]),
    "lora": ({"merge_lora_path": "{folder}/first.safetensors"}, ["--merge-lora={folder}/first.safetensors"]),
    "loras": (
        {"merge_lora_paths": ["{folder}/first.safetensors", "{folder}/second.safetensors"]},
        ["--merge-loras={folder}/first.safetensors", "--merge-loras={folder}/second.safetensors"],
    ),
    "layers": (
        {"layer_config": {"layer_patterns": {"a": {"format": "fp16"}}}},
        ["--layer-config={folder}/layers.json"],
    ),
    "learned": ({"optimizer": "learned_rounding", "num_iter": 5}, ["--optimizer=learned_rounding", "--num-iter=5"]),
}
for _name in ("gptq", "quip"):
    CONTEXTS[_name] = (
        {**CONTEXTS["rows"][0], "optimizer": _name, "convrot": "off"},
        [*CONTEXTS["rows"][1], f"--optimizer={_name}", "--convrot=off"],
    )
CONTEXTS["plain quip"] = ({**CONTEXTS["rows"][0], "optimizer": "quip"}, [*CONTEXTS["rows"][1], "--optimizer=quip"])
CONTEXTS["stored signs"] = (
    {**CONTEXTS["plain quip"][0], "quip_store_transformed": True, "transformed_layout": "full"},
    [*CONTEXTS["plain quip"][1], "--quip-store-transformed", "--quip-transformed-layout=full"],
)
CONTEXTS["custom rows"] = (
    {**CONTEXTS["custom"][0], **CONTEXTS["rows"][0]},
    CONTEXTS["custom"][1] + CONTEXTS["rows"][1],
)
CONTEXTS["fallback rows"] = (
    {**CONTEXTS["fallback"][0], **CONTEXTS["rows"][0]},
    CONTEXTS["fallback"][1] + CONTEXTS["rows"][1],
)
CONTEXTS["checkpointed"] = (
    {**CONTEXTS["quip"][0], "quip_checkpointed": True},
    [*CONTEXTS["quip"][1], "--quip-checkpointed"],
)

CASES = [
    Case({"comfy_quant": False}, ["--no-comfy-quant"]),
    Case({"filter_flags": {"t5xxl": True}}, ["--filter=t5xxl"]),
    Case({"calib_samples": 40}, ["--calib-samples=40"], "rows"),
    Case({"seed": 7}, ["--manual-seed=7"], "stored signs"),
    Case({"fp16": True}, ["--fp16"]),
    Case({"fallback": "fp16"}, ["--fallback=fp16"], "excluded"),
    Case({"custom_layers": "^b", "custom_type": "fp16"}, ["--custom-layers=^b", "--custom-type=fp16"]),
    Case({"exclude_layers": "^b"}, ["--exclude-layers=^b"]),
    Case({"custom_block_size": 32}, ["--custom-block-size=32"], "custom"),
    Case({"custom_scaling_mode": "tensor"}, ["--custom-scaling-mode=tensor"], "custom"),
    Case({"custom_simple": True}, ["--custom-simple"], "custom rows"),
    Case({"custom_heur": True}, ["--custom-heur"], "custom thin"),
    Case({"fallback_block_size": 16}, ["--fallback-block-size=16"], "fallback"),
    Case({"fallback_simple": True}, ["--fallback-simple"], "fallback rows"),
    Case({"full_precision_matrix_mult": True}, ["--full-precision-matrix-mult"]),
    Case({"skip_inefficient_layers": True}, ["--heur"]),
    Case({"include_input_scale": True}, ["--input-scale"], "legacy"),
    Case({"no_learned_rounding": True}, ["--no-learned-rounding"], "rows"),
    Case({"save_quant_metadata": True}, ["--save-quant-metadata"], changes="header"),
    Case(
        {"layer_config": {"layer_patterns": {"a": {"format": "fp16"}}}},
        ["--layer-config={folder}/layers.json"],
        command_differs_in="header",
    ),
    Case({"layer_config_fullmatch": True}, ["--fullmatch"], "layers", command_differs_in="header"),
    Case({"quality_threshold": 54.0}, ["--quality-threshold=54"], "heur"),
    Case({"smoothquant": True}, ["--smoothquant"], "channels"),
    Case({"smoothquant_alpha": 0.9}, ["--smoothquant-alpha=0.9"], "smoothquant"),
    Case({"calibration_data_path": "{folder}/rows.safetensors"}, ["--calibration-data={folder}/rows.safetensors"]),
    Case(
        {"calibration_lora_path": "{folder}/first.safetensors"},
        ["--calibration-lora={folder}/first.safetensors"],
        "no data gptq",
    ),
    Case({"gptq_actorder": True}, ["--gptq-actorder"], "gptq"),
    Case({"gptq_fast": False}, ["--no-gptq-fast"], "gptq", changes="header"),
    Case({"gptq_turbo": True}, ["--gptq-turbo"], "gptq", changes="header"),
    Case({"quip_actorder": False}, ["--no-quip-actorder"], "quip"),
    Case({"quip_hadamard": False}, ["--no-quip-hadamard"], "quip", changes="header"),
    Case({"quip_seed": 5}, ["--quip-seed=5"], "stored signs"),
    Case({"quip_store_transformed": True}, ["--quip-store-transformed"], "plain quip"),
    Case({"quip_requant_scheme": "block"}, ["--quip-requant-scheme=block"], "plain quip"),
    Case({"quip_requant_tensor_per_row": False}, ["--no-quip-requant-tensor-per-row"], "plain quip"),
    Case({"quip_checkpointed": True}, ["--quip-checkpointed"], "quip", changes="header"),
    Case({"quip_checkpoint_threshold": 200}, ["--quip-checkpoint-threshold=200"], "checkpointed", changes="header"),
    Case({"quip_checkpoint_segments": 2}, ["--quip-checkpoint-segments=2"], "checkpointed", changes="header"),
    Case({"merge_lora_path": "{folder}/first.safetensors"}, ["--merge-lora={folder}/first.safetensors"]),
    Case(
        {"merge_lora_paths": ["{folder}/second.safetensors", "{folder}/first.safetensors"]},
        ["--merge-loras={folder}/second.safetensors", "--merge-loras={folder}/first.safetensors"],
    ),
    Case({"merge_lora_scale": 0.5}, ["--merge-lora-scale=0.5"], "lora"),
    Case({"merge_lora_dampen": False}, ["--no-merge-lora-dampen"], "loras"),
    # converter_kwargs
    Case({"optimizer": "learned_rounding"}, ["--optimizer=learned_rounding"]),
    Case({"lr": 0.05, "top_p": 0.5}, ["--lr=0.05", "--top-p=0.5"], "learned"),
    Case({"format": "int4"}, ["--format=int4"]),
    Case({"convrot": 64}, ["--convrot=64"]),
    Case({"scaling_mode": "tensor", "optimizer": None}, ["--scaling-mode=tensor"]),
    Case({"bias_correction": False}, ["--no-bias-correction"], "rows"),
    # Memory and messages
    Case({"low_memory": True}, ["--low-memory"], "gptq", changes="nothing"),
    Case({"streaming_mode": "aggressive"}, ["--streaming-mode=aggressive"], "gptq", changes="nothing"),
    Case(
        {"streaming_thresholds": {"ldlq": 4096, "hadamard": None}},
        ["--stream-ldlq-threshold=4096"],
        "gptq",
        changes="nothing",
    ),
    Case({"no_memory_limits": True}, ["--no-memory-limits"], "gptq", changes="nothing"),
    Case({"report_quality": True}, ["--report-quality"], changes="nothing"),
]


class Conversions(InFolder):
    def setUp(self):
        super().setUp()
        self.source = self.save(
            "model.safetensors",
            {
                "a.weight": draw(1, 64, 256).bfloat16(),
                "a.bias": draw(2, 64),
                "aa.weight": draw(9, 32, 64).bfloat16(),
                "b.weight": draw(3, 32, 128).bfloat16(),
                "shared.weight": draw(4, 64, 64).bfloat16(),
                "thin.weight": draw(5, 8, 64).bfloat16(),
            },
            {"author": "somebody"},
        )
        rows = correlated(6, 400, 256)
        self.save("rows.safetensors", {"a.input": rows})
        self.save("channels.safetensors", {"a.channel_max": rows.abs().amax(0)})
        for number, name in enumerate(("first", "second")):
            lora = {"a.lora_A.weight": draw(20 + number, 4, 256), "a.lora_B.weight": draw(30 + number, 64, 4)}
            self.save(f"{name}.safetensors", lora)
        (self.folder / "layers.json").write_text(json.dumps({"layer_patterns": {"a": {"format": "fp16"}}}))
        self.output = self.folder / "out.safetensors"
        setup_logging("MINIMAL")
        self.addCleanup(setup_logging, "NORMAL")

    def in_folder(self, value):
        if isinstance(value, str):
            return value.replace("{folder}", str(self.folder))
        return [self.in_folder(item) for item in value] if isinstance(value, list) else value

    def call(self, **parameters):
        """The function, with all documented defaults."""
        required = {"comfy_quant": True, "filter_flags": {}, "calib_samples": 6144, "seed": 0, "sync": False}
        given = {**required, **{name: self.in_folder(value) for name, value in parameters.items()}}
        return convert_to_int8(**{"input_file": self.source, "output_file": str(self.output), **given})

    def convert(self, **parameters):
        """The bytes that the function writes."""
        self.call(**parameters)
        return self.output.read_bytes()

    def command(self, flags):
        """The bytes that the command writes. The function filters nothing, and saves no metadata, unless it is asked
        to.
        """
        output = self.folder / "command.safetensors"
        words = ["-i", self.source, "-o", output, "--overwrite", "--no-sync", *map(self.in_folder, flags)]
        if not any(flag.startswith("--filter") for flag in flags):
            words.append("--filter=none")
        if "--save-quant-metadata" not in flags:
            words.append("--no-save-quant-metadata")
        run_command(*words)
        return output.read_bytes()

    def test_every_parameter_does_what_the_flag_does(self):
        befores = {}
        for case in CASES:
            with self.subTest(case.parameters, context=case.context):
                context, context_flags = CONTEXTS[case.context]
                if case.context not in befores:
                    befores[case.context] = self.convert(**context), read(self.output)[0]
                before, tensors_before = befores[case.context]
                after = self.convert(**{**context, **case.parameters})
                tensors_after = read(self.output)[0]
                by_command = self.command([*context_flags, *case.flags])
                if case.command_differs_in == "header":
                    self.assertTrue(same(tensors_after, read(self.folder / "command.safetensors")[0]))
                else:
                    self.assertEqual(after, by_command)
                if case.changes == "nothing":
                    self.assertEqual(after, before)
                elif case.changes == "header":
                    self.assertNotEqual(after, before)
                else:
                    self.assertFalse(same(tensors_before, tensors_after), "the parameter changed no tensor")

    def test_every_parameter_has_a_case(self):
        documented = set(inspect.signature(convert_to_int8).parameters) - {
            "input_file",
            "output_file",
            "converter_kwargs",
        }
        self.assertEqual(documented - {name for case in CASES for name in case.parameters}, set())

    def test_defaults_are_those_of_the_signature(self):
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(convert_to_int8).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        self.assertEqual(len(defaults), 44)
        self.assertEqual(self.convert(), self.convert(**defaults))
        self.assertEqual(self.convert(), self.command([]))

    def test_arguments_may_be_positional_and_paths_may_be_paths(self):
        expected = self.convert(fp16=True)
        convert_to_int8(Path(self.source), self.output, True, {}, 6144, 0, True)
        self.assertEqual(self.output.read_bytes(), expected)
        expected = self.convert(calibration_data_path="{folder}/rows.safetensors", seed=3, calib_samples=100)
        rows = self.folder / "rows.safetensors"
        self.call(calibration_data_path=rows, seed=np.int64(3), calib_samples=torch.tensor(100))
        self.assertEqual(self.output.read_bytes(), expected)

    def test_it_returns_the_report(self):
        result = self.call()
        self.assertEqual(type(result).__name__, "ConvertResult")
        self.assertEqual(result.output_bytes, self.output.stat().st_size)
        self.assertEqual([layer.name for layer in result.layers], ["a", "aa", "b", "shared", "thin"])

    def test_the_order_of_a_layer_configuration_decides(self):
        first, second = ("a[a]?$", {"format": "fp16"}), ("[a]?a$", {"format": "int8"})  # equally specific
        for patterns, expected in (((first, second), torch.float16), ((second, first), torch.int8)):
            self.call(layer_config={"layer_patterns": dict(patterns)})
            self.assertEqual(read(self.output)[0]["a.weight"].dtype, expected)

    def test_what_load_layer_config_returns_is_a_layer_configuration(self):
        config = load_layer_config(self.folder / "layers.json")
        self.assertEqual(config, {"layer_patterns": {"a": {"format": "fp16"}}})
        self.call(layer_config=config)
        expected = read(self.output)[0]
        self.command(["--layer-config={folder}/layers.json"])
        self.assertTrue(same(read(self.folder / "command.safetensors")[0], expected))

    def test_the_environment_variable_is_the_default_of_streaming_mode(self):
        setup_logging("NORMAL")

        def memory(**parameters):
            with self.assertLogs("qmill", logging.INFO) as logs:
                self.call(**parameters)
            return re.search(r"memory (\w+)", "\n".join(logs.output)).group(1)

        self.assertEqual(memory(), "balanced")
        with mock.patch.dict(os.environ, STREAMING_AGGRESSIVENESS="aggressive"):
            self.assertEqual(memory(), "aggressive")
            self.assertEqual(memory(streaming_mode="balanced"), "balanced")
        with (
            mock.patch.dict(os.environ, STREAMING_AGGRESSIVENESS="bold"),
            self.refused(UsageError, "STREAMING_AGGRESSIVENESS", "bold"),
        ):
            self.call()

    def test_the_quality_report_and_warnings_are_logged(self):
        setup_logging("NORMAL")
        with self.assertLogs("qmill", logging.INFO) as logs:
            self.call(report_quality=True, quality_threshold=90.0)
        text = "\n".join(logs.output)
        self.assertIn("Quantization Quality Report", text)
        self.assertIn("below 90.00 dB", text)
        self.assertTrue(
            any(record.levelno == logging.WARNING and "a has" in record.getMessage() for record in logs.records)
        )

    def test_nothing_is_printed(self):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            self.call(report_quality=True)
        self.assertEqual(printed.getvalue(), "")

    # Errors

    def wrong(self, kind, says, **parameters):
        """The call is refused, and the output is as it was before."""
        self.output.write_bytes(b"as before")
        names = sorted(path.name for path in self.folder.iterdir())
        with self.subTest(parameters), self.refused(kind, *says):
            self.call(**parameters)
        self.assertEqual(self.output.read_bytes(), b"as before")
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), names)

    def test_values_of_a_wrong_type_name_the_parameter(self):
        wrong = {bool: "yes", int: 1.5, float: "high", str: 5, list: "first.safetensors", dict: ["a"]}
        hints = typing.get_type_hints(convert_to_int8)
        for name in inspect.signature(convert_to_int8).parameters:
            if name == "converter_kwargs":
                continue
            hint = hints[name]
            if type(None) in typing.get_args(hint):
                hint = typing.get_args(hint)[0]
            else:
                self.wrong(UsageError, [f"{name} is None", "expected"], **{name: None})
            value = wrong[typing.get_origin(hint) or hint]
            self.wrong(UsageError, [f"{name} is ", "expected"], **{name: value})

    def test_numbers_are_not_switches(self):
        self.wrong(UsageError, ["fp16 is 1", "True or False"], fp16=1)
        self.wrong(UsageError, ["seed is True", "an integer"], seed=True)
        self.wrong(UsageError, ["filter_flags['t5xxl'] is 1", "True or False"], filter_flags={"t5xxl": 1})
        self.wrong(UsageError, ["a key of filter_flags is 5"], filter_flags={5: True})

    def test_numbers_out_of_range(self):
        self.wrong(UsageError, ["quality_threshold is nan", "finite"], quality_threshold=math.nan)
        self.wrong(UsageError, ["merge_lora_scale is inf"], merge_lora_scale=math.inf)
        self.wrong(UsageError, ["seed is", "64 bits"], seed=2**63)
        self.wrong(UsageError, ["calib_samples", "0"], calib_samples=0)
        self.wrong(UsageError, ["custom_block_size", "0"], custom_layers="a", custom_type="int8", custom_block_size=0)
        self.wrong(UsageError, ["fallback_block_size", "0"], exclude_layers="a", fallback="int8", fallback_block_size=0)
        self.wrong(UsageError, ["smoothquant_alpha", "1.5"], smoothquant=True, smoothquant_alpha=1.5)
        self.wrong(UsageError, ["ldlq", "0"], streaming_thresholds={"ldlq": 0})
        self.wrong(UsageError, ["checkpoint_segments", "0"], optimizer="quip", quip_checkpoint_segments=0)

    def test_names_that_do_not_exist(self):
        self.wrong(UsageError, ["t5xl", "t5xxl"], filter_flags={"t5xl": False})
        self.wrong(UsageError, ["fallback", "fp17", "fp16"], exclude_layers="a", fallback="fp17")
        self.wrong(UsageError, ["custom_type", "imt8", "int8"], custom_layers="a", custom_type="imt8")
        self.wrong(
            UsageError,
            ["custom_scaling_mode", "rows", "row"],
            custom_layers="a",
            custom_type="int8",
            custom_scaling_mode="rows",
        )
        self.wrong(
            UsageError,
            ["streaming_mode", "medium", "off, minimal, balanced, aggressive, auto"],
            streaming_mode="medium",
        )
        self.wrong(UsageError, ["hadamar", "hadamard"], streaming_thresholds={"hadamar": 1})
        self.wrong(
            UsageError, ["requant_scheme", "rows", "tensor, block"], optimizer="quip", quip_requant_scheme="rows"
        )
        self.wrong(UsageError, ["optimiser", "optimizer"], optimiser="quip")
        self.wrong(UsageError, ["quantizer", "qiup", "quip"], optimizer="qiup")
        self.wrong(UsageError, ["num_iter", "learned_rounding"], num_iter=10)
        self.wrong(InputError, ["'a'", "fromat", "format"], layer_config={"layer_patterns": {"a": {"fromat": "int8"}}})

    def test_parameters_that_do_not_go_together(self):
        self.wrong(UsageError, ["custom_type"], custom_layers="a")
        self.wrong(UsageError, ["custom_layers"], custom_type="fp16")
        self.wrong(UsageError, ["fallback"], fallback_block_size=16)
        self.wrong(UsageError, ["input_scale", "legacy"], include_input_scale=True)
        self.wrong(UsageError, ["no_learned_rounding", "quip"], no_learned_rounding=True, optimizer="quip")
        self.wrong(UsageError, ["low_memory", "no_memory_limits"], low_memory=True, no_memory_limits=True)
        self.wrong(UsageError, ["smoothquant"], smoothquant_alpha=0.7)

    def test_files(self):
        self.wrong(UsageError, ["input_file"], input_file="")
        self.wrong(UsageError, ["output_file"], output_file="")
        self.wrong(UsageError, ["model.safetensors"], output_file=self.source)
        for name in ("input_file", "calibration_data_path", "calibration_lora_path", "merge_lora_path"):
            self.wrong(FileError, ["nothing.safetensors"], **{name: "{folder}/nothing.safetensors"})
        self.wrong(FileError, ["nothing.safetensors"], merge_lora_paths=["{folder}/nothing.safetensors"])
        self.wrong(UnsupportedError, ["layers.json"], input_file="{folder}/layers.json")

    def test_values_that_are_not_finite(self):
        broken = self.save("broken.safetensors", {"a.weight": torch.full((16, 16), math.nan)})
        self.wrong(NumericError, ["a.weight"], input_file=broken)

    def test_values_that_json_lacks(self):
        self.wrong(UsageError, ["lr is of type complex"], optimizer="learned_rounding", lr=1j)
        self.wrong(UsageError, ["layer_config['a'] is of type set"], layer_config={"a": {"b"}})
        self.wrong(UsageError, ["seed is an integer of 16610 bits"], seed=10**5000)

    def test_paths_that_the_libraries_do_not_have(self):
        for name in ("input_file", "output_file", "calibration_data_path"):
            self.wrong(UsageError, [name, r"'a\x00b'", "without NUL"], **{name: "a\0b"})
            self.wrong(UsageError, [name, r"'\udcff'", "rename the file"], **{name: "\udcff"})


def expanded(scale, shape):
    """The scale of every value, as numpy."""
    scale = scale.numpy()
    if scale.ndim == 2:
        return np.kron(scale, np.ones((shape[0] // scale.shape[0], shape[1] // scale.shape[1]), dtype=np.float32))
    return np.full(shape, scale)


class Converters(InFolder):
    weight = draw(1, 256, 256).bfloat16()
    inputs = correlated(2, 1000, 256).double()
    hessian = (inputs.T @ inputs).float()

    def objective(self, dequantized):
        error = self.weight.double() - dequantized.double()
        return (error @ self.hessian.double() * error).sum().item()

    def rounded(self):
        weight = self.weight.float()
        scale = weight.abs().amax(1, keepdim=True) / 127
        return (weight / scale).round() * scale

    def converted(self, converter, shape, *arguments, weight=None, **keywords):
        """What convert() returns, after checks of everything that is documented about it."""
        weight = self.weight if weight is None else weight
        result = converter.convert(weight, *arguments, **keywords)
        self.assertIsInstance(result, tuple)
        q, scale, dequantized = result
        self.assertEqual((q.dtype, q.shape), (torch.int8, weight.shape))
        self.assertEqual((scale.dtype, scale.shape), (torch.float32, torch.Size(shape)))
        self.assertEqual((dequantized.dtype, dequantized.shape), (torch.float32, weight.shape))
        self.assertGreaterEqual(q.min().item(), -127)
        product = q.numpy().astype(np.float32) * expanded(scale, weight.shape)
        np.testing.assert_array_equal(dequantized.numpy(), product)
        return result

    def test_gptq(self):
        q, _, dequantized = self.converted(GPTQInt8Converter(), (256, 1), H=self.hessian)
        self.assertLess(self.objective(dequantized), 0.6 * self.objective(self.rounded()))
        scaled, _, _ = self.converted(GPTQInt8Converter(), (256, 1), self.hessian * 1024)
        self.assertTrue(torch.equal(q, scaled))
        _, _, plain = self.converted(GPTQInt8Converter(), (256, 1))
        self.assertTrue(torch.equal(plain, self.rounded()))

    def test_options_of_gptq(self):
        def q(**options):
            return self.converted(GPTQInt8Converter(**options), (256, 1), self.hessian)[0]

        expected = q()
        self.assertFalse(torch.equal(q(actorder=False), expected))
        for options in (
            {"block_size": 32},
            {"lazy_updates": False},
            {"device": "cpu"},
            {"device": "auto"},
            {"use_triton": True},
        ):
            self.assertLessEqual((q(**options) != expected).sum().item(), expected.numel() // 1000, options)  # ties

    def test_quip(self):
        _, _, dequantized = self.converted(QuIPInt8Converter(), (256, 1), self.hessian)
        self.assertLess(self.objective(dequantized), 0.6 * self.objective(self.rounded()))
        self.converted(QuIPInt8Converter(requant_scheme="block"), (2, 2), self.hessian)
        self.converted(QuIPInt8Converter(requant_scheme="block", block_size=64), (4, 4), self.hessian)
        self.converted(QuIPInt8Converter(requant_tensor_use_per_row_scale=False), (), self.hessian)

    def test_quip_stored_transformed(self):
        q, scale, dequantized = QuIPInt8Converter(store_transformed=True).convert(self.weight, self.hessian)
        self.assertFalse(torch.allclose(q * scale, dequantized, rtol=0.1))  # codes and scale are of another basis
        self.assertLess(self.objective(dequantized), 0.6 * self.objective(self.rounded()))
        with self.refused(UsageError, "hadamard"):
            QuIPInt8Converter(store_transformed=True, use_hadamard=False)

    def test_options_of_quip(self):
        def q(**options):
            return self.converted(QuIPInt8Converter(**options), (256, 1), self.hessian)[0]

        expected = q()
        self.assertFalse(torch.equal(q(actorder=False), expected))
        for options in (
            {"use_hadamard": False, "seed": 5},
            {"use_checkpointed_ldlq": True, "checkpointed_ldlq_threshold": 1, "checkpoint_segments": 2},
            {"streaming_thresholds": {"ldlq": 128 * 256, "hadamard": None}},
            {"streaming_mode": "aggressive"},
            {"no_memory_limits": True},
            {"device": "cpu"},
        ):
            self.assertTrue(torch.equal(q(**options), expected), options)
        for options in ({"block_size": 16}, {"lazy_updates": False}):
            self.assertLessEqual((q(**options) != expected).sum().item(), expected.numel() // 1000, options)  # ties

    def test_activation_scales(self):
        largest = self.inputs.abs().amax(0).float()
        for converter, shape in (
            (QuIPInt8Converter(requant_scheme="block", store_transformed=False), (2, 2)),
            (LearnedRoundingConverter(num_iter=50), (2, 2)),
        ):
            plain = self.converted(converter, shape)[0]
            weighted = self.converted(converter, shape, activation_scales=largest)[0]
            if isinstance(converter, LearnedRoundingConverter):
                self.assertFalse(torch.equal(plain, weighted))
        with self.refused(UsageError, "smoothquant_alpha", "2"):
            QuIPInt8Converter().convert(self.weight, activation_scales=largest, smoothquant_alpha=2)

    def test_learned_rounding(self):
        _, scale, _ = self.converted(LearnedRoundingConverter(num_iter=50), (2, 2))
        tiles = self.weight.float().view(2, 128, 2, 128).abs().amax((1, 3)) / 127
        self.assertTrue(torch.equal(scale, tiles))
        self.converted(LearnedRoundingConverter(block_size=64, num_iter=5), (4, 4))

    def test_options_of_learned_rounding(self):
        def q(**options):
            return self.converted(LearnedRoundingConverter(**{"num_iter": 50, **options}), (2, 2))[0]

        expected = q()
        for options in (
            {"num_iter": 0},
            {"lr": 0.0001},
            {"lr_schedule": "exponential", "lr": 0.5},
            {"top_p": 0.9},
            {"min_k": 200},
            {"min_k": 1, "max_k": 8},
        ):
            self.assertFalse(torch.equal(q(**options), expected), options)
        for optimizer in ("adamw", "radam"):
            self.assertFalse(torch.equal(q(optimizer=optimizer), q(optimizer=optimizer, num_iter=0)), optimizer)

    def test_every_floating_type_and_every_layout_of_memory(self):
        converter = GPTQInt8Converter()
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            weight = draw(5, 32, 48).to(dtype)
            expected = self.converted(converter, (32, 1), weight=weight.clone())[0]
            self.assertTrue(
                torch.equal(self.converted(converter, (32, 1), weight=weight.T.contiguous().T)[0], expected), dtype
            )
        parameter = torch.nn.Parameter(draw(6, 16, 16))
        before = parameter.detach().clone()
        q, scale, dequantized = self.converted(converter, (16, 1), weight=parameter)
        self.assertFalse(dequantized.requires_grad)
        self.assertTrue(torch.equal(parameter, before))

    def test_results_are_on_the_device_of_the_weight(self):
        for tensor in GPTQInt8Converter().convert(self.weight, self.hessian):
            self.assertEqual(tensor.device.type, "cpu")

    @unittest.skipUnless(torch.cuda.is_available(), "there is no GPU: weights on one are not tested")
    def test_weights_on_a_gpu(self):
        expected = GPTQInt8Converter().convert(self.weight, self.hessian)
        found = GPTQInt8Converter().convert(self.weight.cuda(), self.hessian)
        for here, there in zip(expected, found, strict=True):
            self.assertEqual(there.device.type, "cuda")
            self.assertTrue(torch.equal(there.cpu(), here))
        merged = merge_lora_into_weight(self.weight.cuda(), draw(1, 4, 256), draw(2, 256, 4).cuda(), 4.0, 4)
        self.assertEqual(merged.device.type, "cuda")

    def test_constructors_refuse_wrong_values(self):
        for converter, says, options in (
            (GPTQInt8Converter, ["block_size is 0"], {"block_size": 0}),
            (GPTQInt8Converter, ["block_size is 1.5", "an integer"], {"block_size": 1.5}),
            (GPTQInt8Converter, ["device", "tpu", "cpu"], {"device": "tpu"}),
            (GPTQInt8Converter, ["device is of type device", "a text"], {"device": torch.device("cpu")}),
            (GPTQInt8Converter, ["actorder is None"], {"actorder": None}),
            (QuIPInt8Converter, ["requant_scheme", "rows", "tensor, block"], {"requant_scheme": "rows"}),
            (QuIPInt8Converter, ["streaming mode", "bold"], {"streaming_mode": "bold"}),
            (QuIPInt8Converter, ["streaming threshold", "ldlg", "ldlq"], {"streaming_thresholds": {"ldlg": 1}}),
            (
                QuIPInt8Converter,
                ["threshold", "no_memory_limits"],
                {"streaming_thresholds": {"ldlq": 1}, "no_memory_limits": True},
            ),
            (QuIPInt8Converter, ["checkpoint_segments", "0"], {"checkpoint_segments": 0}),
            (QuIPInt8Converter, ["seed is 'x'"], {"seed": "x"}),
            (LearnedRoundingConverter, ["optimizer", "sgd", "original, adamw, radam"], {"optimizer": "sgd"}),
            (LearnedRoundingConverter, ["lr_schedule", "cosine"], {"lr_schedule": "cosine"}),
            (LearnedRoundingConverter, ["lr is nan"], {"lr": math.nan}),
            (LearnedRoundingConverter, ["num_iter", "-1"], {"num_iter": -1}),
        ):
            with self.subTest(options), self.refused(UsageError, *says):
                converter(**options)

    def test_convert_refuses_what_does_not_fit(self):
        convert = GPTQInt8Converter().convert
        for kind, says, arguments in (
            (UsageError, ["weight_tensor is of type ndarray", "torch.Tensor"], (self.weight.float().numpy(),)),
            (UsageError, ["weight_tensor is of type NoneType"], (None,)),
            (UsageError, ["weight_tensor is on the device meta"], (torch.empty(4, 4, device="meta"),)),
            (UsageError, ["weight_tensor is torch.sparse_coo"], (torch.eye(4).to_sparse(),)),
            (UsageError, ["weight_tensor", "float8_e8m0fnu"], (torch.ones(4, 4, dtype=torch.float8_e8m0fnu),)),
            (UsageError, ["weight", "matrix"], (torch.ones(4),)),
            (UsageError, ["weight", "matrix"], (torch.ones(4, 4, dtype=torch.int32),)),
            (UsageError, ["weight", "matrix"], (torch.ones(0, 4),)),
            (UsageError, ["H is", "4 x 4", "256 x 256"], (self.weight, torch.ones(4, 4))),
            (NumericError, ["H has values"], (self.weight, self.hessian * math.nan)),
            (NumericError, [], (torch.full((4, 4), math.nan),)),
            (NumericError, [], (torch.full((4, 4), math.inf),)),
        ):
            with self.subTest(says), self.refused(kind, *says):
                convert(*arguments)
        with self.refused(UsageError, "block_size 128", "100 x 256"):
            LearnedRoundingConverter().convert(draw(1, 100, 256))
        with self.refused(UsageError, "activation_scales", "256"):
            QuIPInt8Converter().convert(self.weight, activation_scales=torch.ones(4))


class Loras(InFolder):
    def expected(self, weight, *loras):
        """In F64, with numpy."""
        total = weight.double().numpy().reshape(len(weight), -1)
        for a, b, strength in loras:
            total = total + strength * (b.double().numpy().reshape(len(b), -1) @ a.double().numpy().reshape(len(a), -1))
        return total.reshape(weight.shape)

    def assert_merged(self, merged, weight, *loras):
        self.assertEqual((merged.dtype, merged.shape, merged.device), (weight.dtype, weight.shape, weight.device))
        expected = self.expected(weight, *loras)
        bound = 2 * torch.finfo(weight.dtype).eps + 1e-5  # rounding of the result, and of sums in F32
        np.testing.assert_allclose(merged.double().numpy(), expected, rtol=bound, atol=bound)

    def test_one(self):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            weight, a, b = draw(1, 24, 40).to(dtype), draw(2, 4, 40), draw(3, 24, 4).to(dtype)
            before = weight.clone()
            self.assert_merged(merge_lora_into_weight(weight, a, b, 8.0, 4), weight, (a, b, 2.0))
            self.assert_merged(merge_lora_into_weight(weight, a, b, 8, 4, scale=-0.25), weight, (a, b, -0.5))
            self.assert_merged(
                merge_lora_into_weight(weight, a, b, torch.tensor(8.0), np.int64(4)), weight, (a, b, 2.0)
            )
            self.assertTrue(torch.equal(weight, before))

    def test_a_convolution(self):
        weight, a, b = draw(1, 8, 6, 3, 3), draw(2, 2, 6, 3, 3), draw(3, 8, 2, 1, 1)
        self.assert_merged(merge_lora_into_weight(weight, a, b, 1.0, 2), weight, (a, b, 0.5))

    def test_several(self):
        weight = draw(1, 24, 40)
        first, second = (draw(2, 4, 40), draw(3, 24, 4)), (draw(4, 2, 40), draw(5, 24, 2))
        configs = [
            {"lora_A": first[0], "lora_B": first[1], "alpha": 8.0, "rank": 4, "scale": 1.0},
            {"lora_A": second[0], "lora_B": second[1], "alpha": 2.0, "rank": 2, "scale": 0.9},
        ]
        self.assert_merged(merge_multiple_loras(weight, configs), weight, (*first, 2.0), (*second, 0.9))
        del configs[1]["scale"]
        self.assert_merged(merge_multiple_loras(weight, tuple(configs)), weight, (*first, 2.0), (*second, 1.0))
        self.assertTrue(torch.equal(merge_multiple_loras(weight, []), weight))

    def test_what_cannot_be_merged(self):
        weight, a, b = draw(1, 24, 40), draw(2, 4, 40), draw(3, 24, 4)
        whole = {"lora_A": a, "lora_B": b, "alpha": 4.0, "rank": 4}
        for kind, says, call in (
            (UsageError, ["rank is 0"], lambda: merge_lora_into_weight(weight, a, b, 4.0, 0)),
            (UsageError, ["rank is 1.5"], lambda: merge_lora_into_weight(weight, a, b, 4.0, 1.5)),
            (UsageError, ["alpha is nan"], lambda: merge_lora_into_weight(weight, a, b, math.nan, 4)),
            (UsageError, ["scale is 'x'"], lambda: merge_lora_into_weight(weight, a, b, 4.0, 4, "x")),
            (UsageError, ["24 x 4", "4 x 39"], lambda: merge_lora_into_weight(weight, a[:, :39], b, 4.0, 4)),
            (UsageError, ["lora_B"], lambda: merge_lora_into_weight(weight, a, b.int(), 4.0, 4)),
            (UsageError, ["lora_A is of type list"], lambda: merge_lora_into_weight(weight, a.tolist(), b, 4.0, 4)),
            (UsageError, ["weight"], lambda: merge_lora_into_weight(weight.int(), a, b, 4.0, 4)),
            (NumericError, ["range"], lambda: merge_lora_into_weight(weight.half(), a, b, 1e9, 4)),
            (
                UsageError,
                ["lora_configs[1]['rank'] is None"],
                lambda: merge_multiple_loras(weight, [whole, {**whole, "rank": None}]),
            ),
            (UsageError, ["lora_configs[0] has no 'lora_B'"], lambda: merge_multiple_loras(weight, [{"lora_A": a}])),
            (
                UsageError,
                ["lora_configs[0]", "'strength'", "scale"],
                lambda: merge_multiple_loras(weight, [{**whole, "strength": 1}]),
            ),
            (
                UsageError,
                ["lora_configs[0]['lora_A'] is of type"],
                lambda: merge_multiple_loras(weight, [{**whole, "lora_A": "a"}]),
            ),
            (UsageError, ["lora_configs[0] is of type Tensor"], lambda: merge_multiple_loras(weight, [a])),
        ):
            with self.subTest(says), self.refused(kind, *says):
                call()

    def test_files(self):
        a, b = draw(1, 4, 40).half(), draw(2, 24, 4).half()
        path = self.save(
            "lora.safetensors",
            {
                "lora_unet_mid_q.lora_down.weight": a,
                "lora_unet_mid_q.lora_up.weight": b,
                "lora_unet_mid_q.alpha": torch.tensor(2.0),
                "lora_unet_mid_k.lora_down.weight": 2 * a,
                "lora_unet_mid_k.lora_up.weight": 2 * b,
            },
        )
        tensors = load_lora_tensors(path)
        self.assertEqual(len(tensors), 2)
        by_end = {name[-1]: tensor for name, tensor in tensors.items()}
        self.assertTrue(torch.equal(by_end["q"], a.float()))
        self.assertTrue(torch.equal(by_end["k"], 2 * a.float()))
        loras = load_lora_for_merging(Path(path))
        self.assertEqual(loras.keys(), tensors.keys())
        for name, lora in loras.items():
            factor, alpha = (1, 2.0) if name.endswith("q") else (2, 4.0)  # the rank, where the file has no alpha
            self.assertEqual((lora["alpha"], lora["rank"]), (alpha, 4))
            self.assertEqual((type(lora["alpha"]), type(lora["rank"])), (float, int))
            self.assertTrue(torch.equal(lora["lora_A"], factor * a.float()))
            self.assertTrue(torch.equal(lora["lora_B"], factor * b.float()))
            weight = draw(3, 24, 40)
            strength = factor * factor * alpha / 4
            self.assert_merged(merge_multiple_loras(weight, [lora]), weight, (a, b, strength))

    def test_files_that_are_none(self):
        for load in (load_lora_tensors, load_lora_for_merging):
            with self.refused(FileError, "nothing.safetensors"):
                load(self.folder / "nothing.safetensors")
            with self.refused(InputError, "model.safetensors", "LoRA"):
                load(self.save("model.safetensors", {"a.weight": torch.ones(4, 4)}))
            with self.refused(UsageError, "path is 5"):
                load(5)
        dora = {"a.lora_A.weight": draw(1, 2, 8), "a.lora_B.weight": draw(2, 8, 2), "a.dora_scale": torch.ones(8, 1)}
        with self.refused(UnsupportedError, "dora.safetensors", "'a'"):
            load_lora_for_merging(self.save("dora.safetensors", dora))


class Loader(InFolder):
    tensors = {
        "layer.weight": draw(1, 3, 5).bfloat16(),
        "layer.bias": draw(2, 7),
        "scalar": torch.tensor(2.5),
        "empty": torch.ones(0, 4),
        "codes": torch.arange(-3, 3, dtype=torch.int8).view(2, 3),
        "steps": torch.tensor([2**40]),
        "mask": torch.tensor([True, False]),
        "small": draw(3, 4).to(torch.float8_e4m3fn),
        "smaller": draw(4, 4).to(torch.float8_e5m2),
    }

    def setUp(self):
        super().setUp()
        self.path = self.save("model.safetensors", self.tensors, {"author": "somebody"})

    def test_both_modes_give_everything(self):
        for low_memory in (False, True):
            for path in (self.path, Path(self.path)):
                with UnifiedSafetensorsLoader(path, low_memory=low_memory) as loader:
                    self.assertEqual(sorted(loader.keys()), sorted(self.tensors))
                    self.assertIsInstance(loader.keys(), list)
                    self.assertEqual(loader.metadata(), {"author": "somebody"})
                    for name, expected in self.tensors.items():
                        self.assertEqual(loader.get_shape(name), tuple(expected.shape))
                        self.assertEqual(loader.get_ndim(name), expected.ndim)
                        found = loader.get_tensor(name)
                        self.assertEqual((found.dtype, found.shape), (expected.dtype, expected.shape), name)
                        kind = torch.uint8 if expected.element_size() == 1 else expected.dtype
                        self.assertTrue(torch.equal(found.view(kind), expected.view(kind)), name)

    def test_what_is_processed_is_read_again(self):
        loader = UnifiedSafetensorsLoader(self.path)
        self.addCleanup(loader.close)
        first = loader.get_tensor("layer.weight")
        self.assertEqual(loader.get_tensor("layer.weight").data_ptr(), first.data_ptr())
        self.assertIsNone(loader.mark_processed("layer.weight"))
        again = loader.get_tensor("layer.weight")
        self.assertNotEqual(again.data_ptr(), first.data_ptr())
        self.assertTrue(torch.equal(again, first))
        loader.mark_processed("layer.weight")
        loader.mark_processed("layer.weight")

    def test_tensors_outlive_it(self):
        for low_memory in (False, True):
            with UnifiedSafetensorsLoader(self.path, low_memory) as loader:
                kept = loader.get_tensor("layer.bias")
            os.truncate(self.path, 0) if low_memory else None
            self.assertTrue(torch.equal(kept, self.tensors["layer.bias"]))

    def test_close_is_final(self):
        loader = UnifiedSafetensorsLoader(self.path)
        loader.close()
        loader.close()
        for call in (
            loader.keys,
            loader.metadata,
            lambda: loader.get_shape("layer.bias"),
            lambda: loader.get_ndim("layer.bias"),
            lambda: loader.get_tensor("layer.bias"),
            lambda: loader.mark_processed("layer.bias"),
            loader.__enter__,
        ):
            with self.refused(UsageError, "closed"):
                call()

    def test_the_end_of_a_with_block_closes_it_after_an_error(self):
        with self.assertRaises(ZeroDivisionError):
            with UnifiedSafetensorsLoader(self.path) as loader:
                raise ZeroDivisionError
        with self.refused(UsageError, "closed"):
            loader.keys()

    def test_keys_that_are_not_there(self):
        for low_memory in (False, True):
            with UnifiedSafetensorsLoader(self.path, low_memory) as loader:
                for call in (loader.get_tensor, loader.get_shape, loader.get_ndim, loader.mark_processed):
                    with self.refused(UsageError, "model.safetensors", "layer.wieght"):
                        call("layer.wieght")

    def test_several_files(self):
        names = {"layer.weight": "model-1.safetensors", "layer.bias": "model-2.safetensors"}
        os.remove(self.path)
        for name, file in names.items():
            self.save(file, {name: self.tensors[name]})
        index = self.folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
        for path in (index, self.folder):
            with UnifiedSafetensorsLoader(path) as loader:
                self.assertEqual(sorted(loader.keys()), sorted(names))
                self.assertTrue(torch.equal(loader.get_tensor("layer.bias"), self.tensors["layer.bias"]))

    def test_files_that_are_damaged(self):
        whole = Path(self.path).read_bytes()
        size = struct.unpack("<Q", whole[:8])[0]

        def with_header(header):
            text = header if isinstance(header, bytes) else json.dumps(header).encode()
            return struct.pack("<Q", len(text)) + text + bytes(16)

        def entry(**changes):
            return with_header({"x": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changes}})

        damaged = {
            "nothing": b"",
            "few bytes": whole[:5],
            "half a header": whole[:40],
            "no data": whole[: 8 + size],
            "one byte less": whole[:-1],
            "one byte more": whole + b"x",
            "a header of exabytes": struct.pack("<Q", 2**62) + whole[8:],
            "a header of all ones": b"\xff" * 8 + whole[8:],
            "no JSON": with_header(b"{]"),
            "no object": with_header(b"[1, 2]"),
            "deep": with_header(b'{"x":' * 100_000 + b"1" + b"}" * 100_000),
            "two of one name": with_header(b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},' * 2 + b'"x":1}'),
            "an unknown type": entry(dtype="F31"),
            "a negative side": entry(shape=[-2, 2]),
            "a huge side": entry(shape=[2**62, 2**62]),
            "another size": entry(shape=[2, 3]),
            "offsets beyond the end": entry(data_offsets=[0, 2**40], shape=[2**38]),
            "offsets backwards": entry(data_offsets=[16, 0]),
            "a text as a side": entry(shape=["2", 2]),
            "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        }
        for what, content in damaged.items():
            path = self.folder / "damaged.safetensors"
            path.write_bytes(content)
            for low_memory in (False, True):
                with self.subTest(what, low_memory=low_memory), self.refused(InputError, "damaged.safetensors"):
                    UnifiedSafetensorsLoader(path, low_memory)
        (self.folder / "empty").mkdir()
        with self.refused(QmillError, "empty"):
            UnifiedSafetensorsLoader(self.folder / "empty")
        with self.refused(FileError, "other.safetensors"):
            UnifiedSafetensorsLoader(self.folder / "other.safetensors")

    def test_a_type_that_torch_lacks(self):
        text = json.dumps(
            {
                "half": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]},
                "whole": {"dtype": "F32", "shape": [3], "data_offsets": [4, 16]},
            }
        ).encode()
        path = self.folder / "small.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<I3f", 0, 1, 2, 3))
        for low_memory in (False, True):
            with UnifiedSafetensorsLoader(path, low_memory) as loader:
                self.assertEqual(loader.get_shape("half"), (8,))
                self.assertEqual(loader.get_tensor("whole").tolist(), [1, 2, 3])
                with self.refused(UnsupportedError, "half"):
                    loader.get_tensor("half")


class LayerConfigs(InFolder):
    def write(self, text):
        path = self.folder / "layers.json"
        path.write_text(text)
        return path

    def test_it_is_what_the_file_holds_in_its_order(self):
        config = {
            "z": {"format": "int8", "block_size": 64, "skip": False},
            "a": {},
            "_default": {"format": "fp16"},
            "_exclusions": ["x"],
        }
        found = load_layer_config(str(self.write(json.dumps(config))))
        self.assertEqual(list(found.items()), list(config.items()))

    def test_errors_name_the_entry(self):
        for kind, says, text in (
            (InputError, ["layers.json"], "{"),
            (InputError, ["layers.json"], "[]"),
            (InputError, ["layers.json"], "{" * 1000),
            (QmillError, ["layers.json", "'a'", "twice"], '{"a": {}, "a": {}}'),
            (QmillError, ["'a'", "fromat", "format"], '{"a": {"fromat": "int8"}}'),
            (QmillError, ["'a'", "block_size"], '{"a": {"block_size": "64"}}'),
            (QmillError, ["'(a'"], '{"(a": {}}'),
        ):
            with self.subTest(text[:20]), self.refused(kind, *says):
                load_layer_config(self.write(text))
        with self.refused(FileError, "nothing.json"):
            load_layer_config(self.folder / "nothing.json")


class Quality(unittest.TestCase):
    def test_the_figures_are_those_of_the_definition(self):
        original = draw(1, 32, 64).bfloat16()
        dequantized = original.float() + 0.01 * draw(2, 32, 64)
        reporter = QualityReporter(threshold=30.0)
        reporter.add_layer("second", original, dequantized)
        reporter.add_layer("first", original, original)
        error = (original.double() - dequantized.double()).numpy()
        mse = np.mean(error**2)
        sqnr = 10 * np.log10(np.mean(original.double().numpy() ** 2) / mse)
        text = reporter.get_report_string()
        row = next(line for line in text.splitlines() if line.startswith("second"))
        self.assertEqual(
            [part.strip() for part in row.split("|")[1:]], [f"{mse:.8f}", f"{sqnr:.2f}", f"{np.abs(error).max():.4f}"]
        )
        self.assertLess(text.index("first"), text.index("second"))
        self.assertIn(f"Mean SQNR: {sqnr:.2f} dB", text)
        self.assertIn("Layers below 30.0 dB: 0 / 2", text)

    def test_the_threshold(self):
        reporter = QualityReporter(90)
        reporter.add_layer("a", draw(1, 8, 8), draw(1, 8, 8) * 0.99)
        self.assertIn("Layers below 90.0 dB: 1 / 1", reporter.get_report_string())

    def test_what_does_not_fit_is_refused_and_not_added(self):
        reporter = QualityReporter()
        for says, call in (
            (["'a'", "[4, 4]", "[4, 5]"], lambda: reporter.add_layer("a", torch.ones(4, 4), torch.ones(4, 5))),
            (["'a'"], lambda: reporter.add_layer("a", torch.ones(4, 4).int(), torch.ones(4, 4))),
            (["original_tensor is of type list"], lambda: reporter.add_layer("a", [1.0], torch.ones(1))),
            (["layer_name is 5"], lambda: reporter.add_layer(5, torch.ones(1), torch.ones(1))),
            (["threshold is 'high'"], lambda: QualityReporter("high")),
        ):
            with self.subTest(says):
                with self.assertRaises(UsageError) as caught:
                    call()
                for part in says:
                    self.assertIn(part, str(caught.exception))
        self.assertEqual(reporter.get_report_string(), QualityReporter().get_report_string())


class Filters(unittest.TestCase):
    def test_they_are_those_of_the_command(self):
        listed = json.loads(run_command("filters", "list", "--json"))
        self.assertEqual(list(MODEL_FILTERS), [entry["name"] for entry in listed])
        self.assertEqual(len(MODEL_FILTERS), len(listed))
        self.assertGreater(len(listed), 40)
        self.assertEqual(MODEL_FILTERS["t5xxl"].name, "t5xxl")

    def test_names(self):
        name = next(name for name in MODEL_FILTERS if "_" in name)
        self.assertIs(MODEL_FILTERS[name.replace("_", "-")], MODEL_FILTERS[name])
        self.assertIn("t5xxl", MODEL_FILTERS)
        self.assertNotIn("t5xl", MODEL_FILTERS)
        self.assertNotIn(5, MODEL_FILTERS)
        self.assertIsNone(MODEL_FILTERS.get("nothing"))
        with self.assertRaisesRegex(KeyError, "t5xl.*t5xxl"):
            MODEL_FILTERS["t5xl"]

    def test_nobody_can_change_them(self):
        with self.assertRaises(TypeError):
            MODEL_FILTERS["mine"] = MODEL_FILTERS["t5xxl"]


class Logging(unittest.TestCase):
    def setUp(self):
        self.logger = logging.getLogger("qmill")
        before = self.logger.level, list(self.logger.handlers), self.logger.propagate, list(logging.root.handlers)

        def restore():
            setup_logging("NORMAL")
            level, self.logger.handlers, self.logger.propagate, logging.root.handlers = before
            self.logger.setLevel(level)

        self.addCleanup(restore)
        self.logger.handlers = [logging.NullHandler()]
        logging.root.handlers = []

    def test_levels(self):
        for name, level in (("VERBOSE", logging.DEBUG), ("NORMAL", logging.INFO), ("MINIMAL", logging.WARNING)):
            setup_logging(name)
            self.assertEqual(self.logger.getEffectiveLevel(), level)
        with self.assertRaises(UsageError) as caught:
            setup_logging("LOUD")
        for part in ("LOUD", "DEBUG", "VERBOSE", "NORMAL", "MINIMAL"):
            self.assertIn(part, str(caught.exception))
        self.assertEqual(self.logger.getEffectiveLevel(), logging.WARNING)
        with self.assertRaisesRegex(UsageError, "level is 10"):
            setup_logging(10)

    def test_messages_go_to_stderr_once(self):
        with contextlib.redirect_stderr(io.StringIO()) as printed:
            setup_logging("NORMAL")
            setup_logging("VERBOSE")
            self.logger.info("hello")
        self.assertEqual(printed.getvalue(), "qmill: hello\n")

    def test_an_application_that_handles_messages_gets_no_other_handler(self):
        logging.root.handlers = [logging.StreamHandler(io.StringIO())]
        setup_logging("NORMAL")
        self.assertEqual(len(self.logger.handlers), 1)

    def test_the_level_decides_which_messages_there_are(self):
        def messages(level):
            setup_logging(level)
            text.truncate(0)
            QuIPInt8Converter(device="cuda").convert(torch.eye(8))
            convert_to_int8(model, model + ".out", True, {}, 6144, 0)
            return len(text.getvalue().splitlines())

        text = io.StringIO()
        self.logger.handlers = [logging.StreamHandler(text)]
        with tempfile.TemporaryDirectory() as folder:
            model = f"{folder}/model.safetensors"
            save_file({"a.weight": draw(1, 32, 32), "a.bias": draw(2, 32)}, model)
            counts = [messages(level) for level in ("MINIMAL", "NORMAL", "VERBOSE", "DEBUG")]
        self.assertEqual(counts[0], 0)
        self.assertEqual(counts, sorted(set(counts)))


class Distribution(unittest.TestCase):
    folder = SOURCE / "apps" / "python" / "convert_to_quant"

    def test_the_version_is_that_of_the_project(self):
        version = re.search(r"project\(qmill VERSION ([\d.]+)", (SOURCE / "CMakeLists.txt").read_text()).group(1)
        text = (self.folder / "pyproject.toml").read_text()
        self.assertIn(f'\nversion = "{version}"\n', text)
        self.assertIn(f'"qmill=={version}"', text)

    def test_every_package_is_in_it(self):
        listed = re.search(r"^packages = \[(.*)\]$", (self.folder / "pyproject.toml").read_text(), re.M).group(1)
        found = {
            ".".join(["convert_to_quant", *path.parent.relative_to(self.folder).parts])
            for path in self.folder.rglob("__init__.py")
        }
        self.assertEqual(set(json.loads(f"[{listed}]")), found)


if __name__ == "__main__":
    unittest.main()
