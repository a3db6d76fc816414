"""Numbers that look random and are the same everywhere: made of the raw bits of PCG64, by arithmetic that rounds nothing."""

import zlib

import numpy as np


def _bits(name, count):
    """`count` words of 16 bits that belong to this name: no other tensor's values move when one is added."""
    seed = zlib.crc32(name.encode())
    return np.random.PCG64(seed).random_raw(-(-count // 4)).astype("<u8").view("<u2")[:count]


def draw(name, *shape):
    """F64, about normal with a deviation of 0.58: multiples of 2^-16 below 2."""
    count = int(np.prod(shape))
    words = _bits(name, 4 * count).reshape(count, 4).astype(np.int64)
    return ((words.sum(1) - 2 * 65535) / 65536).reshape(shape)


def weight(name, rows, columns):
    """Rows of different sizes, one row of zeros, a column that is larger than the others, and a few values that are larger still."""
    values = np.ldexp(draw(name, rows, columns), -(np.arange(rows) % 4 + 3)[:, None])
    values[:, columns // 3] *= 8
    values.reshape(-1)[:: 7 * columns + 5] *= 16
    values[rows // 2] = 0
    return values


def inputs(name, rows, columns):
    """Sample rows: 24 directions hold most of them, some columns are larger, and one is always zero."""
    values = draw(f"{name} rows", rows, 24) @ draw(f"{name} mix", 24, columns) + draw(f"{name} noise", rows, columns) / 4 + 0.125
    values[:, ::37] *= 8
    values[:, 5] = 0
    return values


def float8(name, *shape, largest=0x6F):
    """Codes of 8-bit floats, either sign, none of them infinite or no number."""
    words = _bits(name, int(np.prod(shape)))
    return (words % (largest + 1) | words >> 8 & 0x80).astype(np.uint8).reshape(shape)


def codes(name, *shape):
    """Any bytes."""
    return (_bits(name, int(np.prod(shape))) & 0xFF).astype(np.uint8).reshape(shape)
