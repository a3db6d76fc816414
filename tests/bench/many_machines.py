"""How the time of a gptq run falls with the number of ranks: many_machines.py QMILL

Single ranks are measured: gptq on layers of several shapes, one thread, gives the seconds of one layer as a N K^2 + b K^3 (b: the factor of
its inputs' Hessian). The ranks of a large model are simulated with that: each takes the most expensive layer that is left. What all ranks
share, the file system, is a bandwidth that is assumed. The table is the one of docs/many-machines.md; nothing in it was run on 64 machines.
"""

import heapq
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

SHAPES = [(512, 1024), (2048, 1024), (512, 2048), (2048, 2048), (4096, 1024)]
ROWS = 1024
KEYS = Path(__file__).parents[1] / "data" / "keys" / "flux2_dev.json"
BLOCKS = {"double_blocks.": 8, "single_blocks.": 48}
RANKS = [1, 2, 4, 8, 16, 32, 64]
BYTES_PER_SECOND = 1e9  # of the shared file system
START = 5.0  # seconds until a rank of that model has its plan


def measured_layers(qmill):
    """(N, K, seconds) of each layer, quantized by one thread."""
    found = []
    for rows, columns in SHAPES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            save_file({"a.weight": torch.randn(rows, columns).bfloat16()}, folder / "m.safetensors")
            save_file({"a.input": torch.randn(ROWS, columns)}, folder / "rows.safetensors")
            command = [qmill, "-i", folder / "m.safetensors", "-o", folder / "o.safetensors", "--filter", "none", "--optimizer", "gptq",
                       "--calibration-data", folder / "rows.safetensors", "--threads", "1", "--json", "--overwrite"]
            seconds = min(json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["layers"][0]["seconds"] for _ in range(3))
            found.append((rows, columns, seconds))
    return found


def fitted(layers):
    """a and b of seconds = a N K^2 + b K^3, by least squares of relative errors."""
    costs = torch.tensor([[n * k**2 / s, k**3 / s] for n, k, s in layers], dtype=torch.float64)
    a, b = torch.linalg.lstsq(costs, torch.ones(len(layers), 1, dtype=torch.float64)).solution.flatten().tolist()
    return max(a, 0.0), max(b, 0.0)


def model_layers():
    layers = []
    for name, (_, shape) in json.loads(KEYS.read_text()).items():
        copies = next((count for prefix, count in BLOCKS.items() if name.startswith(prefix)), 0)
        if len(shape) == 2:
            layers += [tuple(shape)] * copies
    return layers


def simulated(costs, ranks):
    """Seconds until the last rank is done."""
    free = [START] * ranks
    heapq.heapify(free)
    for cost in sorted(costs, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + cost)
    return max(free)


def main():
    measured = measured_layers(sys.argv[1])
    a, b = fitted(measured)
    for n, k, seconds in measured:
        print(f"measured {n} x {k}: {seconds:.2f} s, by the formula {a * n * k**2 + b * k**3:.2f} s")
    layers = model_layers()
    size = sum(2 * n * k for n, k in layers)
    costs = [a * n * k**2 + b * k**3 for n, k in layers]
    transfer = 1.5 * size / BYTES_PER_SECOND  # BF16 in, INT8 out
    print(f"{len(layers)} layers, {size / 1e9:.1f} GB, reading and writing takes {transfer:.0f} s at least\n")
    print("| ranks, one thread each | hours | times faster | of that, reached |\n|---|---|---|---|")
    alone = None
    for ranks in RANKS:
        seconds = max(simulated(costs, ranks), transfer)
        alone = alone or seconds
        print(f"| {ranks} | {seconds / 3600:.2f} | {alone / seconds:.1f} | {100 * alone / seconds / ranks:.0f} % |")


if __name__ == "__main__":
    main()
