"""A wrong value of any flag of any command: one line that says what is allowed, and the right status. Driven by the table that help prints."""

import functools
import json
import re

import torch
from safetensors.torch import save_file

from support import TempFolder, qmill as run

qmill = functools.partial(run, choose=list)  # the words as they are

# Flags that mean something only beside others.
NEEDS = {
    "smoothquant-alpha": ("--smoothquant", "--calibration-data", "rows.safetensors"),
    "fallback-block-size": ("--fallback", "int8"),
    "custom-type": ("--custom-layers", "a"),
    "custom-layers": ("--custom-type", "int8"),
    "custom-block-size": ("--custom-layers", "a", "--custom-type", "int8"),
    "custom-scaling-mode": ("--custom-layers", "a", "--custom-type", "int8"),
    "merge-lora-scale": ("--merge-lora", "lora.safetensors"),
    "calib-samples": ("--calibration-data", "rows.safetensors"),
    "damping": ("--optimizer", "gptq", "--calibration-data", "rows.safetensors"),
    "input": ("--output=out.safetensors",),
}

# What makes each command do something, in a folder with the files of setUp: words, and flags that it needs.
WORDS = {
    "convert": (["model.safetensors", "out.safetensors"], []),
    "plan": (["model.safetensors"], []),
    "batch": (["model.safetensors"], ["--output-dir=out"]),
    "verify": (["int8.safetensors"], []),
    "inspect": (["int8.safetensors"], []),
    "compare": (["int8.safetensors", "model.safetensors"], []),
    "dequantize": (["int8.safetensors", "out.safetensors"], []),
    "edit": (["int8.safetensors", "out.safetensors"], ["--add-keys='x': 1"]),
    "calibrate": (["rows.safetensors", "out.safetensors"], []),
    "plugins": (["list"], []),
    "filters": (["list"], []),
    "completion": (["bash"], []),
    "man": ([], []),
}

# Placeholders of any text, where there is nothing to get wrong.
FREE_TEXT = {"GLOB", "KEYS"}

# Flags that say what this word says.
INSTEAD_OF = {"input": 0, "inputs": 0, "directory": 0, "output": 1}


def commands():
    return sorted(set(re.findall(r"^  qmill (\w+)", qmill("--help")[0], re.MULTILINE)))


def flags(command):
    return json.loads(qmill(command, "--help", "--json")[0])["flags"]


def is_path(flag):
    return flag["value"].rstrip(".") in ("FILE", "DIR", "MODEL")


def is_number(flag):
    return flag["value"] in ("N", "MIB", "DB", "S", "A") or re.search(r"(an integer|a number)( from| of at| of at most|$)", flag["help"]) is not None


def wrong_numbers(flag):
    """No number at all, and those just outside of what the help says."""
    values = ["many", "1x", "nan"]
    bounds = re.search(r"(an integer|a number) (?:from (\S+) to (\S+)|of at least (\S+)|of at most (\S+))$", flag["help"])
    if bounds is not None:
        kind, low, high, at_least, at_most = bounds.groups()
        if kind == "an integer":
            values.append("1.5")
        for bound, step in ((low or at_least, -1), (high or at_most, 1)):
            if bound is not None:
                values.append(f"{float(bound) + step:.0f}")
    return values


class Values(TempFolder):
    def setUp(self):
        super().setUp()
        generator = torch.Generator().manual_seed(0)
        save_file({"a.weight": torch.randn(16, 32, generator=generator)}, self.folder / "model.safetensors")
        save_file({"a.input": torch.randn(64, 32, generator=generator)}, self.folder / "rows.safetensors")
        save_file({"a.lora_A.weight": torch.randn(2, 32, generator=generator), "a.lora_B.weight": torch.randn(16, 2, generator=generator)}, self.folder / "lora.safetensors")
        qmill("-i", "model.safetensors", "-o", "int8.safetensors", cwd=self.folder)
        self.before = self.names()

    def run_with(self, command, flag, value, status):
        given = flag["name"]
        words, needed = WORDS[command]
        if given in INSTEAD_OF:
            words = [word for i, word in enumerate(words) if i != INSTEAD_OF[given]]
        if given == "input":
            words = []
        if given == "pattern":
            words = ["--directory=."]
        needed = [word for word in needed if not word.startswith(f"--{given}=")]
        output, error = qmill(command, *words, *needed, *NEEDS.get(given, ()), f"--{given}={value}", status=status, cwd=self.folder)
        left = [name for name in self.names() if name not in self.before]
        for name in left:
            (self.folder / name).rmdir() if (self.folder / name).is_dir() else (self.folder / name).unlink()
        # A report is about a file that is complete.
        self.assertEqual(left, ["out.safetensors"] if given == "report" else [], "something was left behind")
        if command == "batch" and status == 1:
            return output + error  # the model's line, or one about the whole batch
        self.assertEqual(len(error.strip().splitlines()), 1, error)
        self.assertTrue(error.startswith("qmill: error: "), error)
        self.assertEqual(output, "")
        return error

    def test_every_command_has_words_here(self):
        self.assertEqual(sorted(WORDS), commands())

    def test_each_kind_of_value(self):
        """Every flag with a value is of a kind for which there is something wrong, or is known to be free text."""
        for command in commands():
            for flag in flags(command):
                if not flag["value"]:
                    continue
                kinds = [bool(flag["choices"]), is_number(flag), is_path(flag), flag["value"] in ("REGEX", "DEVICE", "MODE", "TYPE", "VALUE", "NAME", "SIZE"), flag["value"] in FREE_TEXT]
                self.assertTrue(any(kinds), f"{command} --{flag['name']} {flag['value']}: no kind of value that is known here; {flag['help']}")

    def test_wrong_values(self):
        free = []
        for command in commands():
            if command == "plan":
                continue  # the flags of convert, read by the same code
            for flag in flags(command):
                if not flag["value"] or (command == "batch" and "batch" not in flag["topics"]):
                    continue  # batch passes the others on to convert
                name = flag["name"]
                with self.subTest(f"{command} --{name}"):
                    if flag["choices"]:
                        error = self.run_with(command, flag, "no-such-value", 2)
                        self.assertRegex(error, "allowed: |known: |needs ")
                        if len(flag["choices"]) < 8:
                            self.assertTrue(any(choice in error for choice in flag["choices"]), error)
                    elif is_number(flag):
                        for value in wrong_numbers(flag):
                            error = self.run_with(command, flag, value, 2)
                            self.assertIn("allowed: ", error)
                    elif name == "add-keys":
                        self.assertIn("expected", self.run_with(command, flag, "'k': ", 2))
                    elif flag["value"] == "REGEX":
                        self.assertIn("not a regular expression", self.run_with(command, flag, "(", 2))
                    elif is_path(flag):
                        self.check_path(command, flag)
                    elif flag["value"] in FREE_TEXT:
                        free.append(f"{command} --{name} {flag['value']}")
                    else:
                        self.assertRegex(self.run_with(command, flag, "no;such;value", 2), "allowed|known|expected|no |wrong|takes")
        print(f"\nfree text: {', '.join(free)}")

    def check_path(self, command, flag):
        name = flag["name"]
        if name in ("output", "report", "output-dir"):
            # A folder that is not there, and cannot be made.
            error = self.run_with(command, flag, "/proc/none/out.safetensors", 1)
        elif name == "plugin-dir":
            error = self.run_with(command, flag, "none", 2)
        else:
            error = self.run_with(command, flag, "none.safetensors", 1)
        self.assertRegex(error, "none")

    def test_a_value_that_is_left_out(self):
        for command in commands():
            for number, flag in enumerate(flags(command)):
                if flag["value"] and not flag["value_may_be_left_out"]:
                    with self.subTest(f"{command} --{flag['name']}"):
                        # One parser: both spellings of each flag would show nothing more.
                        for word in (f"--{flag['name']}", f"--{flag['name']}=") if number == 0 else (f"--{flag['name']}{'=' * (number % 2)}",):
                            _, error = qmill(command, word, status=2)
                            self.assertEqual(len(error.strip().splitlines()), 1)
                            self.assertRegex(error, f"--{flag['name']} (needs a value|is '', expected)")
                if command in ("plan", "batch"):
                    break  # the parser is the same

    def test_switches_take_no_value(self):
        for flag in flags("convert"):
            if not flag["value"]:
                with self.subTest(flag["name"]):
                    _, error = qmill("convert", "model.safetensors", f"--{flag['name']}=yes", status=2, cwd=self.folder)
                    self.assertIn(f"--{flag['name']} takes no value", error)
                break  # the parser is the same for all
