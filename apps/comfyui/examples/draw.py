"""Draws the example graphs as SVG pictures, from the files that ComfyUI loads: python draw.py [GRAPH.json ...]"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

MARGIN, TITLE, ROW = 20, 28, 22  # pixels
LETTER = 7.1  # width of one letter at 12 pixels, about
SEEDS = ("seed", "noise_seed")  # the page stores one more value after these
COLOURS = {
    "MODEL": "#b39ddb",
    "CLIP": "#ffd54f",
    "VAE": "#ff6e6e",
    "CONDITIONING": "#ffa931",
    "LATENT": "#ff9cf9",
    "IMAGE": "#64b5f6",
    "STRING": "#77bb77",
    "QMILL_RECORDING": "#4dd0c4",
}
OTHER_COLOUR = "#aaaaaa"


def widget_values(node: dict[str, Any]) -> list[tuple[str, Any]]:
    """The widgets of a node and their values, in the order of the page."""
    values = iter(node["widgets_values"])
    found = []
    for slot in node["inputs"]:
        if "widget" in slot:
            name = slot["widget"]["name"]
            found.append((name, next(values)))
            if name in SEEDS:
                found.append(("control after generate", next(values)))
    return found


def draw(graph: dict[str, Any]) -> str:
    """The picture of a graph as SVG text."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    left = min(node["pos"][0] for node in nodes.values()) - MARGIN
    top = min(node["pos"][1] for node in nodes.values()) - TITLE - MARGIN
    width = max(node["pos"][0] + node["size"][0] for node in nodes.values()) + MARGIN - left
    height = max(node["pos"][1] + _height(node) for node in nodes.values()) + MARGIN - top
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left} {top} {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="#202020"/>',
    ]
    parts += [_link(nodes, link) for link in graph["links"]]
    for node in graph["nodes"]:
        parts += _node(node)
    return "\n".join([*parts, "</svg>", ""])


def _sockets(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [slot for slot in node["inputs"] if "widget" not in slot]


def _height(node: dict[str, Any]) -> int:
    rows = max(len(_sockets(node)), len(node["outputs"])) + len(widget_values(node))
    return max(int(node["size"][1]), rows * ROW + 12)


def _input_place(node: dict[str, Any], name: str) -> tuple[int, int]:
    row = [slot["name"] for slot in _sockets(node)].index(name)
    return node["pos"][0], node["pos"][1] + row * ROW + ROW // 2 + 2


def _output_place(node: dict[str, Any], slot: int) -> tuple[int, int]:
    return node["pos"][0] + node["size"][0], node["pos"][1] + slot * ROW + ROW // 2 + 2


def _link(nodes: dict[int, dict[str, Any]], link: list[Any]) -> str:
    _, source, output, target, entry, kind = link
    x1, y1 = _output_place(nodes[source], output)
    x2, y2 = _input_place(nodes[target], nodes[target]["inputs"][entry]["name"])
    bend = max(40, abs(x2 - x1) // 2)
    return (
        f'<path d="M{x1} {y1} C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}" fill="none" '
        f'stroke="{COLOURS.get(kind, OTHER_COLOUR)}" stroke-width="3"/>'
    )


def _node(node: dict[str, Any]) -> list[str]:
    (x, y), width, height = node["pos"], node["size"][0], _height(node)
    ours = node["type"].startswith("Qmill")
    parts = [
        f'<rect x="{x}" y="{y - TITLE}" width="{width}" height="{height + TITLE}" rx="6" fill="#353535" '
        f'stroke="{"#4dd0c4" if ours else "#111111"}" stroke-width="{2 if ours else 1}"/>',
        _text(x + 10, y - 9, node["title"], "#dddddd", bold=True),
    ]
    for slot in _sockets(node):
        cx, cy = _input_place(node, slot["name"])
        parts += [_socket(cx, cy, slot["type"]), _text(cx + 10, cy + 4, slot["name"], "#aaaaaa")]
    for number, slot in enumerate(node["outputs"]):
        cx, cy = _output_place(node, number)
        parts += [_socket(cx, cy, slot["type"]), _text(cx - 10, cy + 4, slot["name"], "#aaaaaa", anchor="end")]
    first = y + max(len(_sockets(node)), len(node["outputs"])) * ROW + 6
    for number, (name, value) in enumerate(widget_values(node)):
        line = first + number * ROW
        shown = {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
        room = int((width - 50) / LETTER) - len(name)
        if len(shown) > room:
            shown = shown[: room - 1] + "…"
        parts += [
            f'<rect x="{x + 10}" y="{line}" width="{width - 20}" height="{ROW - 3}" rx="9" fill="#222222" '
            f'stroke="#666666"/>',
            _text(x + 20, line + 14, name, "#999999"),
            _text(x + width - 20, line + 14, shown, "#dddddd", anchor="end"),
        ]
    return parts


def _socket(x: int, y: int, kind: str) -> str:
    return f'<circle cx="{x}" cy="{y}" r="5" fill="{COLOURS.get(kind, OTHER_COLOUR)}"/>'


def _text(x: int, y: int, text: str, colour: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or sorted(Path(__file__).parent.glob("*.json")):
        path.with_suffix(".svg").write_text(draw(json.loads(path.read_text("utf-8"))), "utf-8")
