"""Random numbers of the sampling: every row of a call gets a key, and the rows with the smallest keys are the sample.

The keys of a call depend on the seed, the name of the layer and the number of the call alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def generator(seed: int, *names: object) -> torch.Generator:
    """A random generator on the CPU whose stream is a function of the seed and the names."""
    text = "\0".join([str(seed), *map(str, names)]).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=8).digest()
    # torch keeps 63 bits of a seed on every release.
    return torch.Generator(device="cpu").manual_seed(int.from_bytes(digest, "little") >> 1)


def row_keys(seed: int, layer: str, call: int, rows: int) -> Tensor:
    """Keys of the rows of one call: [rows] F64, independent and uniform in [0, 1)."""
    return torch.rand(rows, dtype=torch.float64, device="cpu", generator=generator(seed, layer, call))


def keys_of_sample(seed: int, layer: str, stratum: object, kept: int, seen: int) -> tuple[Tensor, float]:
    """Keys for a uniform sample of `kept` rows out of `seen`, as if the sample had been chosen by them.

    Returns the keys [kept] F64 and the key below which all are: they have the joint distribution of the smallest
    `kept + 1` of `seen` uniform numbers (order statistics; Devroye, Non-Uniform Random Variate Generation, 1986, V.3).
    So a sample of an earlier recording and the rows of a new one can be sampled together without a bias.
    """
    random = generator(seed, "sample", layer, stratum)
    wanted = min(kept + 1, seen)
    uniform = torch.rand(wanted, dtype=torch.float64, device="cpu", generator=random)
    left = torch.arange(seen, seen - wanted, -1, dtype=torch.float64, device="cpu")
    # 1 - key is a product of factors u^(1/n), u^(1/(n-1)), ...
    keys = -torch.expm1(torch.cumsum(torch.log1p(-uniform) / left, dim=0))
    threshold = float(keys[kept]) if wanted > kept else 1.0
    order = torch.randperm(kept, device="cpu", generator=random)
    return keys[:kept][order], threshold


def even_shares(wanted: Sequence[int], limit: int, priority: Sequence[float]) -> list[int]:
    """Shares a limit over parties: as equal as possible, no party gets more than it wants.

    What cannot be divided goes, one each, to the parties of the smallest priority. The sum is min(sum(wanted), limit).
    """
    if sum(wanted) <= limit:
        return list(wanted)
    left, cap = limit, 0
    ascending = sorted(wanted)
    for done, size in enumerate(ascending):
        cap = left // (len(ascending) - done)
        if size > cap:
            break
        left -= size
    shares = [min(size, cap) for size in wanted]
    spare = limit - sum(shares)
    for index in sorted(range(len(shares)), key=lambda i: (priority[i], i)):
        if spare == 0:
            break
        if wanted[index] > shares[index]:
            shares[index] += 1
            spare -= 1
    return shares
