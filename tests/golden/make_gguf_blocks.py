"""What the reference decoders of GGUF make of random blocks: gguf_blocks.json has a hash of their values for each type.

Made with the package gguf from PyPI, version 0.19.0: python make_gguf_blocks.py
"""

import hashlib
import json
import random
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "gguf_blocks.json"
BLOCKS = 1024
TYPES = "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS".split()


def random_blocks(number, block_bytes):
    """Any bytes are blocks; some of these have factors that are infinite or not a number."""
    return random.Random(number).randbytes(BLOCKS * block_bytes)


def hash_of(values):
    """Of F32 values, bit for bit; one NaN is as good as another."""
    values = np.array(values, dtype="<f4").reshape(-1)
    values[np.isnan(values)] = np.nan
    return hashlib.sha256(values.tobytes()).hexdigest()


def main():
    import gguf

    pinned = {}
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        block_values, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        blocks = np.frombuffer(random_blocks(int(kind), block_bytes), np.uint8).reshape(BLOCKS, block_bytes)
        with np.errstate(all="ignore"):
            values = gguf.quants.dequantize(blocks, kind)
        pinned[name] = {"number": int(kind), "block_values": block_values, "block_bytes": block_bytes, "sha256": hash_of(values)}
    FILE.write_text(json.dumps(pinned, indent=1) + "\n")


if __name__ == "__main__":
    main()
