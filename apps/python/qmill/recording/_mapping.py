"""Which layer of the checkpoint a module is: by name, by name without prefixes, else by the values of the weight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qmill.model import Model

from ._checkpoint import layer_shapes
from ._modules import LinearModule

_WRAPPERS = frozenset(
    "model diffusion_model transformer net text_encoder text_model language_model unet module base_model".split()
)
FLOATS = ("F64", "F32", "F16", "BF16")
_PROBES = 16  # positions per axis that are compared


@dataclass
class Matching:
    """Modules and layers that belong together."""

    layers: dict[str, list[str]] = field(default_factory=dict)  # module: its layers; several if it joins them
    parts: dict[str, str] = field(default_factory=dict)  # module that is not recorded: the one with the same input
    modules_without_layer: list[str] = field(default_factory=list)
    layers_without_module: list[str] = field(default_factory=list)


def core_name(name: str) -> str:
    """A name without the prefixes that wrappers put before a model's own names."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts.pop(0)
    return ".".join(parts)


def match(modules: Sequence[LinearModule], others: Sequence[str], checkpoint: Model) -> Matching:
    """Matches the linear modules of a model with the layers of its checkpoint.

    `others` names modules with 2-D weights that are no linear layers; the layers with their names are not missed.
    """
    shapes = layer_shapes(checkpoint)
    result = Matching()
    _match_names(modules, shapes, result)
    taken = {layer for layers in result.layers.values() for layer in layers}
    _match_values([m for m in modules if m.name not in result.layers], shapes, taken, checkpoint, result)
    named = {layer for layers in result.layers.values() for layer in layers}
    no_layers = {core_name(name) for name in others}
    result.layers_without_module = [n for n in shapes if n not in named and core_name(n) not in no_layers]
    result.modules_without_layer = [
        m.name for m in modules if m.name not in result.layers and m.name not in result.parts
    ]
    return result


def _match_names(modules: Sequence[LinearModule], shapes: dict[str, tuple[int, int]], result: Matching) -> None:
    for module in modules:
        if shapes.get(module.name) == module.shape:
            result.layers[module.name] = [module.name]
    taken = {layer for layers in result.layers.values() for layer in layers}
    layers: dict[str, list[str]] = defaultdict(list)
    for name in shapes:
        if name not in taken:
            layers[core_name(name)].append(name)
    left: dict[str, list[LinearModule]] = defaultdict(list)
    for module in modules:
        if module.name not in result.layers:
            left[core_name(module.name)].append(module)
    for core, same in left.items():
        found = layers.get(core, [])
        if len(same) == len(found) == 1 and shapes[found[0]] == same[0].shape:
            result.layers[same[0].name] = found


def _match_values(
    modules: Sequence[LinearModule],
    shapes: dict[str, tuple[int, int]],
    taken: set[str],
    checkpoint: Model,
    result: Matching,
) -> None:
    widths = {module.shape[1] for module in modules}
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)  # layer: modules and their first row in it
    joined: dict[str, list[tuple[int, str]]] = defaultdict(list)  # module: first row of each layer in it
    for layer, shape in shapes.items():
        if layer in taken or shape[1] not in widths or checkpoint.dtype(f"{layer}.weight") not in FLOATS:
            continue
        weight = checkpoint.tensor(f"{layer}.weight")
        for module in modules:
            values = module.values() if module.shape[1] == shape[1] else None
            if values is None:
                continue
            if module.shape[0] <= shape[0]:
                row = first_row(weight, values)
                if row is not None:
                    found[layer].append((module.name, row))
            else:
                row = first_row(values, weight)
                if row is not None:
                    joined[module.name].append((row, layer))
    places = [name for inside in found.values() for name, _ in inside]
    for layer, inside in found.items():
        inside = [(name, row) for name, row in inside if places.count(name) == 1 and name not in joined]
        if not inside:
            continue
        # Tied modules begin at the same row: both are this layer. The others are parts, and have the leader's input.
        leader, first = min(inside, key=lambda item: item[1])
        result.layers.update({name: [layer] for name, row in inside if row == first})
        result.parts.update({name: leader for name, row in inside if row != first})
    owners = [layer for inside in joined.values() for _, layer in inside]
    for name, rows in joined.items():
        layers = [layer for _, layer in sorted(rows) if owners.count(layer) == 1 and layer not in found]
        if layers and name not in places:
            result.layers[name] = layers


def first_row(whole: Tensor, part: Tensor) -> int | None:
    """The row of `whole` [M, K] where the rows `part` [N, K], N <= M, begin; None if they are not there, or unclear.

    Compares 16 columns of every row, and 16 rows of the place that is found.
    """
    (m, k), n = whole.shape, part.shape[0]
    columns, rows = _probes(k), _probes(n)
    wanted = _some(part, rows, columns)
    if bool((wanted == wanted[0, 0]).all()):
        return None  # Equal values, as of an untrained layer, name no place.
    starts = torch.arange(m - n + 1)
    candidates = _some(whole, starts, columns)
    starts = starts[_equal(candidates, wanted[:1]).all(dim=1)]
    places = [int(start) for start in starts if bool(_equal(_some(whole, start + rows, columns), wanted).all())]
    return places[0] if len(places) == 1 else None


def same_values(a: Tensor, b: Tensor) -> bool:
    """Whether two weights [N, K] are equal at up to 16 x 16 places, once one is cast to the type of the other."""
    rows, columns = (_probes(length) for length in a.shape)
    return bool(_equal(_some(a, rows, columns), _some(b, rows, columns)).all())


def _probes(length: int) -> Tensor:
    return torch.linspace(0, length - 1, min(length, _PROBES)).round().long()


def _some(weight: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    device = weight.device
    return weight.index_select(1, columns.to(device)).index_select(0, rows.to(device)).to("cpu")


def _equal(a: Tensor, b: Tensor) -> Tensor:
    """Where two tensors have the same values once one is cast to the type of the other."""
    return (a.to(b.dtype) == b) | (a == b.to(a.dtype))
