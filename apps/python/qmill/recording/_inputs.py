"""Layers and their inputs: which layers read the same input, and what is collected of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ._collectors import Collector, Collectors
from ._identity import InputIdentity
from ._reservoir import Label


@dataclass
class DistinctInput:
    """An input that one or several layers read. Every layer has made `calls` calls with it, or one less."""

    leader: str  # names the stream of random numbers
    collector: Collector
    calls: int = 0
    identity: InputIdentity | None = None  # of the latest call
    layers: list[str] = field(default_factory=list)


@dataclass
class LayerState:
    """What is known of one layer."""

    calls: int = 0
    input: DistinctInput | None = None
    non_finite_rows: int = 0
    skipped: str = ""  # why a call was not recorded; the latest reason
    left_out: bool = False  # the budget has no room


class InputTable:
    """All layers that were called. Not safe for threads; the recording has the lock.

    Two layers share an input only while every call of both had the same one. A layer joins the input of another in its
    first call. As soon as a call differs, or only one of them makes it, it goes on with a copy of its own, which holds
    what both saw before.
    """

    def __init__(self, collectors: Collectors, share: bool) -> None:
        self.layers: dict[str, LayerState] = {}
        self._collectors = collectors
        self._share = share
        self._first_calls: dict[tuple[object, ...], DistinctInput] = {}

    def observe(self, layer: str, x: Tensor | None, label: Label) -> None:
        """Records one call of a layer with the input x [..., K]. Reads x, keeps no reference to it.

        None: the call has no tensor as its input.
        """
        state = self.layers.setdefault(layer, LayerState())
        unusable = _unusable(x, state.input)
        if x is None or unusable:
            state.skipped = unusable
            return
        shared = state.input
        if shared is None:
            self._first_call(layer, state, x, label)
            return
        alone = len(shared.layers) == 1
        identity = None if alone else InputIdentity.of(x)
        if state.calls < shared.calls:
            if identity is not None and identity.same(shared.identity):
                self._made_call(shared, state)
                return
            self._split(shared, [layer])
        else:
            late = [name for name in shared.layers if self.layers[name].calls < shared.calls]
            if late:
                self._split(shared, late)
        if state.input is not None:
            self._collect(state.input, layer, state, x, identity, label)

    def finish(self) -> None:
        """Splits off the layers that did not make the latest call of their input."""
        for shared in self.inputs():
            late = [name for name in shared.layers if self.layers[name].calls < shared.calls]
            if late:
                self._split(shared, late)

    def inputs(self) -> list[DistinctInput]:
        """The distinct inputs, in the order of their layers' first calls."""
        found = {id(state.input): state.input for state in self.layers.values() if state.input is not None}
        return list(found.values())

    def shared_inputs(self) -> dict[str, str]:
        """Layer: the layer whose entry of the file it shares."""
        return {layer: shared.layers[0] for shared in self.inputs() for layer in shared.layers[1:]}

    def load(self, layers: list[str], calls: int, collector: Collector) -> None:
        """Starts with the data of an earlier recording: an input and the layers that share it."""
        shared = DistinctInput(layers[0], collector, calls, None, list(layers))
        for layer in layers:
            self.layers[layer] = LayerState(calls, shared)

    def _first_call(self, layer: str, state: LayerState, x: Tensor, label: Label) -> None:
        if state.left_out:
            return
        identity = InputIdentity.of(x) if self._share else None
        other = self._first_calls.get(identity.key) if identity is not None else None
        if other is not None and identity is not None and other.calls == 1 and identity.same(other.identity):
            other.layers.append(layer)
            state.input = other
            self._made_call(other, state)
            return
        collector = self._collectors.new(layer, x.shape[-1], x.device)
        if collector is None:
            state.left_out = True
            return
        state.input = DistinctInput(layer, collector, layers=[layer])
        self._collect(state.input, layer, state, x, identity, label)
        if identity is not None:
            self._first_calls[identity.key] = state.input

    def _collect(
        self,
        shared: DistinctInput,
        layer: str,
        state: LayerState,
        x: Tensor,
        identity: InputIdentity | None,
        label: Label,
    ) -> None:
        call = shared.calls
        shared.calls += 1
        shared.identity = identity
        state.non_finite_rows += shared.collector.add(shared.leader, call, label, x, len(shared.layers) > 1)
        self._made_call(shared, state)

    def _made_call(self, shared: DistinctInput, state: LayerState) -> None:
        state.calls += 1
        if all(self.layers[name].calls == shared.calls for name in shared.layers):
            shared.collector.confirm()

    def _split(self, shared: DistinctInput, layers: list[str]) -> None:
        """Gives layers that did not make the latest call of their input a copy without it."""
        collector = self._collectors.split(shared.collector)
        other = None if collector is None else DistinctInput(layers[0], collector, shared.calls - 1, None, list(layers))
        for layer in layers:
            shared.layers.remove(layer)
            self.layers[layer].input = other
            self.layers[layer].left_out = other is None
        if all(self.layers[name].calls == shared.calls for name in shared.layers):
            shared.collector.confirm()


def _unusable(x: Tensor | None, known: DistinctInput | None) -> str:
    """Why an input cannot be recorded; empty if it can."""
    if x is None:
        return "no tensor as the first argument, `input` or `x`"
    if not x.is_floating_point():
        return f"an input of type {x.dtype}, which is no float type"
    if x.is_meta or x.layout != torch.strided or x.is_nested:
        return "an input without values in rows (meta, sparse or nested)"
    if x.dim() == 0 or not x.shape[-1]:
        return "an input without columns"
    if known is not None and x.shape[-1] != known.collector.columns:
        return f"an input with {x.shape[-1]} columns after inputs with {known.collector.columns}"
    return ""
