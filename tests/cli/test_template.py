"""--dry-run create-template: a layer configuration that loads back as it is."""

import json
import os

import torch

from support import TempFolder, qmill, qmill_json

NAMES = ["plain", "blocks.0.attn", "a+b", "(x|y)*", "[0-9]{2}", "^start$", "back\\slash", "dot.dot", "qu\"ote", "q?", "ünï"]


class Template(TempFolder):
    def source(self):
        return self.model({f"{name}.weight": torch.randn(8, 16) for name in NAMES} | {"norm.weight": torch.ones(4), "a.bias": torch.ones(3)})

    def test_it_is_printed_or_written_and_both_are_the_same(self):
        source, output = self.source(), self.folder / "layers.json"
        printed, _ = qmill("-i", source, "--dry-run", "create-template")
        self.assertEqual(qmill("-i", source, "--dry-run", "create-template", "-o", output), ("", ""))
        self.assertEqual(output.read_text(encoding="utf-8"), printed)
        output.unlink()
        qmill("plan", source, output, "--dry-run=create-template")
        self.assertEqual(output.read_text(encoding="utf-8"), printed)
        self.assertEqual(self.names(), ["layers.json", "model.safetensors"])

    def test_it_loads_back_and_every_entry_decides_about_its_layer(self):
        source, output = self.source(), self.folder / "layers.json"
        qmill("-i", source, "--dry-run", "create-template", "-o", output)
        entries = json.loads(output.read_text(encoding="utf-8"))["layer_patterns"]
        self.assertEqual(len(entries), len(NAMES))
        self.assertTrue(all(entry["_shape"] == [8, 16] for entry in entries.values()))
        for flags in ((), ("--fullmatch",)):
            plan = qmill_json("plan", source, "--layer-config", output, *flags)
            self.assertEqual(plan["warnings"], [])  # no pattern is unused
            self.assertEqual({layer["name"] for layer in plan["layers"]}, set(NAMES))
            for layer in plan["layers"]:
                self.assertEqual((layer["rule"], layer["action"]), ("layer_config", "quantize"))
                self.assertIn(layer["reason"], entries)
            self.assertEqual(len({layer["reason"] for layer in plan["layers"]}), len(NAMES))
        qmill("-i", source, "-o", self.folder / "out.safetensors", "--layer-config", output)

    def test_it_replaces_nothing_unasked(self):
        source, output = self.source(), self.folder / "layers.json"
        output.write_text("precious")
        _, error = qmill("-i", source, "--dry-run", "create-template", "-o", output, status=2)
        self.assertIn("exists already", error)
        self.assertEqual(output.read_text(), "precious")
        qmill("-i", source, "--dry-run", "create-template", "-o", output, "--overwrite")
        self.assertIn("layer_patterns", output.read_text(encoding="utf-8"))
        os.link(source, self.folder / "hard.json")
        _, error = qmill("-i", source, "--dry-run", "create-template", "-o", self.folder / "hard.json", "--overwrite", status=2)
        self.assertIn("same file", error)
        _, error = qmill("-i", source, "--dry-run", "create-template", "-o", self.folder / "none" / "layers.json", status=1)
        self.assertIn("does not exist", error)
