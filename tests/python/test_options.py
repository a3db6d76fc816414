"""The types of options are those of the table, and a checker accepts code that uses them."""

import importlib.util
import re
import subprocess
import sys
import unittest

import qmill
from qmill import _write_options
from support import SOURCE, FolderTest, run_command


class Options(FolderTest):
    def test_the_types_are_those_of_the_table(self):
        written = (SOURCE / "apps/python/qmill/options.py").read_text(encoding="utf-8")
        self.assertEqual(written, _write_options.text(), "run: python -m qmill._write_options")

    def test_every_default_is_accepted(self):
        model = self.model()
        plain = qmill.plan(model, filter="none").digest
        for option in qmill.options():
            if option.default is None or option.name in ("filter", "input", "output"):
                continue
            owners = option.to_dict()["of_quantizers"]
            if owners and all(owner["quantizer"] not in ("rtn", "gptq") for owner in owners):
                continue  # options of quantizers that do not run are refused
            if option.name == "block_size":
                continue  # asks for block scaling where no scaling is chosen
            with self.subTest(option=option.name):
                try:
                    digest = qmill.plan(model, filter="none", **{option.name: option.default}).digest
                except qmill.UsageError as error:
                    self.assertIn(f"`{option.name}` needs `", str(error))
                else:
                    self.assertEqual(digest, plain)


    def test_the_page_names_the_flags_that_are_no_options(self):
        flags = re.findall(r"^ +(?:-\w, )?--([a-z0-9-]+)", run_command("convert", "--help", "all"), re.MULTILINE)
        names = {option.name for option in qmill.options()}
        spellings = {flag: {flag.replace("-", "_"), flag.removeprefix("no-").replace("-", "_")} for flag in flags}
        others = {f"--{flag}" for flag, spelled in spellings.items() if not spelled & names} - {"--help"}
        page = (SOURCE / "docs/python.md").read_text(encoding="utf-8")
        named = re.search(r"Only the\ncommand has (.*?):", page, re.DOTALL).group(1)
        self.assertEqual(set(re.findall(r"`(--[a-z-]+)`", named)), others)


class Types(FolderTest):
    EXAMPLE = """
import qmill

result = qmill.convert("model.safetensors", "out.safetensors", optimizer="gptq", format="nvfp4", overwrite=True)
worst: float = max(layer.mse or 0.0 for layer in result.layers)
layers: list[qmill.results.LayerReport] = result.layers
made = qmill.quantize(__import__("torch").zeros(4, 4), scaling_mode="tensor")
print(worst, layers, made.tensors["weight"].dtype)
"""

    @unittest.skipUnless(importlib.util.find_spec("mypy"), "mypy is not installed: the types are not checked")
    def test_mypy_accepts_an_example_and_refuses_slips(self):
        good = self.check(self.EXAMPLE)
        self.assertEqual(good.returncode, 0, good.stdout)
        bad = self.check(self.EXAMPLE.replace("optimizer", "optimzer").replace('"tensor"', '"tensors"'))
        self.assertIn("optimzer", bad.stdout)
        self.assertIn("scaling_mode", bad.stdout)

    def check(self, text):
        (self.folder / "example.py").write_text(text)
        return subprocess.run([sys.executable, "-m", "mypy", "--strict", "--cache-dir", self.folder / "cache", self.folder / "example.py"],
                              capture_output=True, text=True)


if __name__ == "__main__":
    unittest.main()
