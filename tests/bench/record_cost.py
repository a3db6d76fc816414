"""Prints what recording costs: the model's CPU time with `qmill.record`, over that without.

    PYTHONPATH=apps/python python tests/bench/record_cost.py [--mode rows|statistics] [--inference]

The model has 100 linear layers in 16 blocks. Every call has the rows of 4 samples of 512 tokens, and there are 4 steps
of two calls, so every layer sees 16384 rows, and 4096 are kept. One thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn

from qmill.recording import record

_STEPS = 4
_ROUNDS = 2


class Block(nn.Module):
    """Six linear layers; the first three read the same input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.layer_norm(x, x.shape[-1:])
        heads = [part(y).unflatten(-1, (-1, 64)).transpose(1, 2) for part in (self.q, self.k, self.v)]
        x = x + self.out(nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        result: Tensor = x + self.down(nn.functional.gelu(self.up(nn.functional.layer_norm(x, x.shape[-1:]))))
        return result


def seconds(run: Callable[[], object]) -> float:
    """CPU time of a call, in seconds."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=("rows", "statistics"), default="rows")
    parser.add_argument("--inference", action="store_true", help="in inference mode, where tensors count no changes")
    parser.add_argument("--width", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    width = arguments.width
    ends = [nn.Linear(width, width) for _ in range(4)]
    model = nn.Sequential(*ends[:2], *(Block(width) for _ in range(16)), *ends[2:])
    inputs = torch.randn(4, 512, width)
    mode: Callable[[], AbstractContextManager[object]] = torch.inference_mode if arguments.inference else torch.no_grad

    with tempfile.TemporaryDirectory() as folder, mode():
        plain, recorded, writing = [], [], []
        model(inputs)
        for _ in range(_ROUNDS):
            plain.append(seconds(lambda: [model(inputs) for _ in range(2 * _STEPS)]))
            recording = record(
                model, Path(folder) / "rows.safetensors", overwrite=True, statistics=arguments.mode == "statistics"
            )
            recording.start()

            def run() -> None:
                for step in range(_STEPS):
                    recording.step = step
                    model(inputs)
                    model(inputs)

            recorded.append(seconds(run))
            recording.pause()
            writing.append(seconds(lambda: recording.finish()))
    account = recording.account
    print(f"{account.layers} layers, {account.inputs} inputs, {account.row_limit} rows, {account.bytes / 1e6:.0f} MB")
    print(f"model alone {min(plain):.2f} s, with recording {min(recorded):.2f} s, file {min(writing):.2f} s (CPU time)")
    print(f"cost of recording: {100 * (min(recorded) / min(plain) - 1):.1f} % of the model's CPU time")


if __name__ == "__main__":
    main()
