"""The Python code of the pages runs, in the order of its page, in a folder with the files that it names."""

import contextlib
import io
import re
import unittest

import torch
from safetensors.torch import load_file

import qmill
from support import SOURCE, FolderTest, inside

PAGES = ["README.md", "docs/python.md"]


def code_blocks(text):
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


class Layers(torch.nn.Module):
    """The layers of a file, each of which sees five rows per call."""

    def __init__(self, tensors):
        super().__init__()
        self.blocks = torch.nn.ModuleList()
        for i in range(3):
            weight = tensors[f"blocks.{i}.proj.weight"]
            self.blocks.append(torch.nn.ModuleDict({"proj": torch.nn.Linear(*reversed(weight.shape))}))
        self.load_state_dict(tensors)

    def forward(self, _):
        for block in self.blocks:
            block["proj"](torch.randn(5, 256))


class Pages(FolderTest):
    def test_code_runs(self):
        for page in PAGES:
            blocks = code_blocks((SOURCE / page).read_text(encoding="utf-8"))
            self.assertTrue(blocks, page)
            with self.subTest(page=page):
                self.prepare(page)
                names = {}
                for block in blocks:
                    with contextlib.redirect_stdout(io.StringIO()), inside(self.folder):
                        exec(compile(block, page, "exec"), names)

    def test_the_example_of_recording_gives_what_convert_reads(self):
        file = self.model()
        model = Layers(load_file(file))
        (block,) = code_blocks((SOURCE / "docs/calibration.md").read_text(encoding="utf-8"))
        names = {"model": model, "prompts": ["a", "b"], "sigmas": [1.0, 0.5, 0.1]}
        with contextlib.redirect_stdout(io.StringIO()), inside(self.folder):
            exec(compile(block, "docs/calibration.md", "exec"), names)
        plan = qmill.plan(file, filter="none", calibration_data=self.folder / "rows.safetensors")
        rows = {layer["name"]: layer["rows"] for layer in plan.to_dict()["calibration"]["with_rows"]}
        self.assertEqual(rows, {f"blocks.{i}.proj": 2 * 3 * 5 for i in range(3)})
        self.assertEqual([warning for warning in plan.warnings if "another model" in warning], [])

    def prepare(self, page):
        for file in self.folder.iterdir():
            file.unlink()
        model = self.model()
        self.recorded_rows(model)

    def test_the_reader_of_pages(self):
        self.assertEqual(code_blocks("a\n```python\nx = 1\n```\n```\nno\n```\n```python\ny\n```\n"), ["x = 1\n", "y\n"])


if __name__ == "__main__":
    unittest.main()
