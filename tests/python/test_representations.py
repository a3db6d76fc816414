"""What `repr` says of objects: the facts, on one short line."""

import json
import unittest

import torch
from torch import nn

import qmill
from support import FolderTest


class Representations(FolderTest):
    def test_a_conversion(self):
        result = qmill.convert(self.model(), self.folder / "o.safetensors", filter="none")
        text = repr(result)
        self.assertTrue(text.startswith(f"<ConvertResult '{self.folder / 'o.safetensors'}': output_bytes="), text)
        self.assertIn(f"output_bytes={result.output_bytes}, input_bytes={result.input_bytes}", text)
        self.assertIn(f"mean_sqnr_db={result.mean_sqnr_db!r}", text)
        self.assertTrue(text.endswith(f", 3 layers, {len(result.warnings)} warnings>"), text)
        self.assertLess(len(text) - len(str(self.folder)), 300)

    def test_a_weight(self):
        made = qmill.quantize(torch.randn(32, 64), name="a.weight")
        text = repr(made)
        self.assertIn("int8 [32, 64]", text)
        self.assertIn(made.report.format, text)
        self.assertIn(f"sqnr_db={made.report.sqnr_db!r}", text)
        self.assertNotIn("tensor(", text)
        self.assertLess(len(text), 400)

    def test_a_recording_and_its_account(self):
        path = self.folder / "rows.safetensors"
        model = nn.Sequential(nn.Linear(4, 4))
        recording = qmill.Recording(model, path)
        self.assertEqual(repr(recording), f"<qmill.Recording to '{path}': not started, 0 layers with data>")
        recording.start()
        self.assertIn(": running, 0 layers", repr(recording))
        model(torch.randn(3, 4))
        self.assertIn(": running, 1 layer with data>", repr(recording))
        recording.pause()
        self.assertIn(": paused, 1 layer", repr(recording))
        account = recording.finish()
        self.assertIn(": finished, 1 layer", repr(recording))
        found = json.loads(json.dumps(account.to_dict()))
        self.assertEqual((found["path"], found["rows"], found["finished"]), (str(path), {"0": 3}, True))


if __name__ == "__main__":
    unittest.main()
