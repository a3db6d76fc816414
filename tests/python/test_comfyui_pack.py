"""The pack as a whole: what ComfyUI reads of it, and what it says where something is missing."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import unittest
from unittest import mock

from comfy_stand_in import PACK, load_pack
from comfy_stand_in.case import ComfyTest

# What ComfyUI calls widgets: values that are set on the node.
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN")


class Import(unittest.TestCase):
    def test_needs_neither_comfyui_nor_qmill(self) -> None:
        program = f"""
            import importlib.util, sys
            class Block:
                def find_spec(self, name, path=None, target=None):
                    if name.partition(".")[0] in ("comfy", "folder_paths", "server", "qmill"):
                        raise ModuleNotFoundError(name)
            sys.meta_path.insert(0, Block())
            spec = importlib.util.spec_from_file_location(
                "pack", {str(PACK / "__init__.py")!r}, submodule_search_locations=[{str(PACK)!r}])
            pack = sys.modules["pack"] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(pack)
            print(*pack.NODE_CLASS_MAPPINGS)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
        )
        self.assertEqual(done.stderr, "")
        self.assertEqual(
            done.stdout.split(),
            ["QmillRecordModel", "QmillRecordClip", "QmillRecordingStatus", "QmillConvert", "QmillInspect"],
        )

    def test_outside_of_comfyui_a_node_says_so(self) -> None:
        node = load_pack().NODE_CLASS_MAPPINGS["QmillConvert"]
        with self.assertRaisesRegex(RuntimeError, "runs inside ComfyUI only: the module 'folder_paths' is missing"):
            node.INPUT_TYPES()


class Nodes(ComfyTest):
    def test_every_node_has_what_comfyui_reads(self) -> None:
        pack = self.pack
        self.assertEqual(set(pack.NODE_CLASS_MAPPINGS), set(pack.NODE_DISPLAY_NAME_MAPPINGS))
        for name, node in pack.NODE_CLASS_MAPPINGS.items():
            with self.subTest(node=name):
                self.assertTrue(callable(getattr(node(), node.FUNCTION)))
                self.assertEqual(len(node.RETURN_TYPES), len(node.RETURN_NAMES))
                self.assertEqual(node.CATEGORY, "qmill")
                self.assertTrue(node.DESCRIPTION)
                self.assertEqual(node.INPUT_TYPES()["hidden"], {"node_id": "UNIQUE_ID"})

    def test_defaults_of_widgets_are_allowed_values(self) -> None:
        for name, node in self.pack.NODE_CLASS_MAPPINGS.items():
            for field, (kind, settings) in node.INPUT_TYPES()["required"].items():
                with self.subTest(node=name, field=field):
                    if isinstance(kind, list):
                        self.assertIn(settings.get("default", kind[0]), kind)
                    elif kind == "INT":
                        self.assertLessEqual(settings["min"], settings["default"])
                        self.assertLessEqual(settings["default"], settings["max"])
                    elif kind in WIDGETS:
                        self.assertIn("default", settings)

    def test_choices_are_the_files_of_the_model_folders(self) -> None:
        self.save(self.model, self.models / "checkpoints" / "all.safetensors")
        choices = {
            name: node.INPUT_TYPES()["required"] for name, node in self.pack.NODE_CLASS_MAPPINGS.items()
        }
        diffusion = ["diffusion_models/tiny.safetensors", "checkpoints/all.safetensors"]
        encoders = ["text_encoders/clip_l.safetensors", "text_encoders/t5xxl.safetensors"]
        self.assertEqual(choices["QmillRecordModel"]["checkpoint"][0], diffusion)
        self.assertEqual(choices["QmillRecordClip"]["checkpoint"][0], encoders)
        self.assertEqual(choices["QmillConvert"]["model_file"][0], diffusion + encoders)
        self.assertEqual(choices["QmillInspect"]["model_file"][0], diffusion + encoders)

    def test_the_status_node_takes_every_output(self) -> None:
        kind, _ = self.pack.NODE_CLASS_MAPPINGS["QmillRecordingStatus"].INPUT_TYPES()["required"]["after"]
        self.assertEqual(kind, "*")
        self.assertFalse(kind != "LATENT")

    def test_without_qmill_a_node_says_how_to_install_it(self) -> None:
        with (
            mock.patch("importlib.util.find_spec", return_value=None),
            self.assertRaisesRegex(RuntimeError, f"'qmill' is not installed .*wheel.*{sys.executable} -m pip install dist/qmill-.*docs/comfyui.md"),
        ):
            self.pack.NODE_CLASS_MAPPINGS["QmillInspect"]().ask("diffusion_models/tiny.safetensors", "inspect")

    def test_a_record_node_creates_folders_below_the_output_folder_only(self) -> None:
        self.record(rows_file="a/b/rows.safetensors")
        self.assertTrue((self.root / "output" / "a" / "b").is_dir())
        self.record(rows_file=str(self.root / "elsewhere" / "rows.safetensors"))
        self.assertFalse((self.root / "elsewhere").exists())

    def test_a_record_node_refuses_names_outside_of_the_output_folder(self) -> None:
        for name in ("../rows.safetensors", "rows.bin", "", "   ", "/tmp/rows.bin"):
            with self.subTest(name=name), self.assertRaisesRegex(ValueError, "rows_file '.*' must"):
                self.record(rows_file=name)


if __name__ == "__main__":
    unittest.main()
