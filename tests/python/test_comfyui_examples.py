"""The example graphs fit the nodes, and the pictures are drawn from them."""

from __future__ import annotations

import importlib.util
import json
import unittest
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

from comfy_stand_in import PACK
from comfy_stand_in.case import ComfyTest

EXAMPLES = PACK / "examples"
SVG = "{http://www.w3.org/2000/svg}"

# Nodes of ComfyUI itself that the examples use: types of inputs that are links, names of widgets, types of outputs.
CORE: dict[str, tuple[dict[str, str], list[str], list[str]]] = {
    "UNETLoader": ({}, ["unet_name", "weight_dtype"], ["MODEL"]),
    "CLIPLoader": ({}, ["clip_name", "type", "device"], ["CLIP"]),
    "VAELoader": ({}, ["vae_name"], ["VAE"]),
    "EmptySD3LatentImage": ({}, ["width", "height", "batch_size"], ["LATENT"]),
    "CLIPTextEncode": ({"clip": "CLIP"}, ["text"], ["CONDITIONING"]),
    "KSampler": (
        {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT"},
        ["seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler", "denoise"],
        ["LATENT"],
    ),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, [], ["IMAGE"]),
    "PreviewImage": ({"images": "IMAGE"}, [], []),
    "PreviewAny": ({"source": "*"}, [], []),
}


def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw", EXAMPLES / "draw.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Graphs(ComfyTest):
    def interface(self, kind: str) -> tuple[dict[str, str], list[str], list[str]]:
        """Inputs that are links, widgets and outputs of a node, as ComfyUI's page sees them."""
        if kind in CORE:
            return CORE[kind]
        node = self.pack.NODE_CLASS_MAPPINGS[kind]
        fields = {**node.INPUT_TYPES()["required"], **node.INPUT_TYPES().get("optional", {})}
        widgets = [
            name
            for name, (type_, settings) in fields.items()
            if (isinstance(type_, list) or type_ in ("INT", "STRING", "BOOLEAN")) and not settings.get("forceInput")
        ]
        return {n: t for n, (t, _) in fields.items() if n not in widgets}, widgets, list(node.RETURN_TYPES)

    def check(self, graph: dict[str, Any]) -> None:
        nodes = {node["id"]: node for node in graph["nodes"]}
        self.assertEqual(graph["version"], 0.4)
        self.assertEqual(graph["last_node_id"], max(nodes))
        self.assertEqual(graph["last_link_id"], max(link[0] for link in graph["links"]))
        for node in nodes.values():
            inputs, widgets, outputs = self.interface(node["type"])
            with self.subTest(node=node["id"], type=node["type"]):
                links = {slot["name"]: slot["type"] for slot in node["inputs"] if "widget" not in slot}
                self.assertEqual(links, inputs)
                names = [slot["name"] for slot in node["inputs"] if "widget" in slot]
                self.assertEqual(names, [name for name in widgets if name != "control_after_generate"])
                self.assertEqual(len(node["widgets_values"]), len(widgets))
                self.assertEqual([slot["type"] for slot in node["outputs"]], outputs)
                self.assertTrue(all(slot["link"] for slot in node["inputs"] if "widget" not in slot))
        ends = []
        for number, source, output, target, entry, kind in graph["links"]:
            with self.subTest(link=number):
                self.assertIn(number, nodes[source]["outputs"][output]["links"])
                self.assertEqual(nodes[source]["outputs"][output]["type"], kind)
                self.assertEqual(nodes[target]["inputs"][entry]["link"], number)
                self.assertIn(nodes[target]["inputs"][entry]["type"], (kind, "*"))
                ends.append((target, entry))
        self.assertEqual(len(ends), len(set(ends)))

    def test_every_graph_fits_the_nodes(self) -> None:
        names = sorted(path.name for path in EXAMPLES.glob("*.json"))
        self.assertEqual(names, ["convert.json", "record.json"])
        for name in names:
            with self.subTest(graph=name):
                self.check(self.load(name))

    def test_values_are_allowed(self) -> None:
        for name in ("convert.json", "record.json"):
            for node in self.load(name)["nodes"]:
                if node["type"] in CORE:
                    continue
                fields = self.pack.NODE_CLASS_MAPPINGS[node["type"]].INPUT_TYPES()["required"]
                for widget, value in drawing().widget_values(node):
                    kind, settings = fields[widget]
                    with self.subTest(node=node["type"], widget=widget):
                        if kind == "INT":
                            self.assertTrue(settings["min"] <= value <= settings["max"])
                        elif isinstance(kind, list) and widget not in ("checkpoint", "model_file"):
                            self.assertIn(value, kind)
                        else:
                            self.assertIsInstance(value, bool if kind == "BOOLEAN" else str)

    def test_both_graphs_name_the_same_files(self) -> None:
        record = self.values("record.json", "QmillRecordModel")
        convert = self.values("convert.json", "QmillConvert")
        self.assertEqual(record["rows_file"], convert["rows_file"])
        self.assertEqual(record["checkpoint"], convert["model_file"])
        loaded = self.values("record.json", "UNETLoader")["unet_name"]
        self.assertEqual(record["checkpoint"], f"diffusion_models/{loaded}")

    def test_pictures_are_drawn_from_the_graphs(self) -> None:
        for path in EXAMPLES.glob("*.json"):
            with self.subTest(graph=path.name):
                graph = json.loads(path.read_text("utf-8"))
                picture = path.with_suffix(".svg").read_text("utf-8")
                self.assertEqual(picture, drawing().draw(graph), "run apps/comfyui/examples/draw.py")
                texts = [element.text for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]
                for node in graph["nodes"]:
                    self.assertIn(node["title"], texts)
                self.assertEqual(picture.count("<path"), len(graph["links"]))

    def values(self, name: str, kind: str) -> dict[str, Any]:
        (node,) = (node for node in self.load(name)["nodes"] if node["type"] == kind)
        return dict(drawing().widget_values(node))

    @staticmethod
    def load(name: str) -> dict[str, Any]:
        graph: dict[str, Any] = json.loads((EXAMPLES / name).read_text("utf-8"))
        return graph


if __name__ == "__main__":
    unittest.main()
