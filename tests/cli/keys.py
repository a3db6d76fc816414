"""Files with the header of a model (tests/data/keys) and a hole for its data: they take no disk."""

import json
import re
import struct

from support import SOURCE

FOLDER = SOURCE / "tests" / "data" / "keys"
RANGE = re.compile(r"\{(\d+)-(\d+)\}")
TYPES = {"bfloat16": ("BF16", 2), "float16": ("F16", 2), "float32": ("F32", 4), "uint8": ("U8", 1), "int8": ("I8", 1)}


def expanded(pattern):
    """The names that "blocks.{0-2}.q" stands for."""
    found = RANGE.search(pattern)
    if found is None:
        return [pattern]
    first, last = int(found[1]), int(found[2])
    assert first <= last, pattern
    return [name for i in range(first, last + 1) for name in expanded(pattern[: found.start()] + str(i) + pattern[found.end() :])]


def models():
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def tensors(model, replace=()):
    """name -> (dtype, shape); `replace`: pairs of texts, in names, before they are expanded."""
    result = {}
    for pattern, (dtype, shape) in json.loads((FOLDER / f"{model}.json").read_text()).items():
        for old, new in replace:
            pattern = pattern.replace(old, new)
        for name in expanded(pattern):
            assert name not in result, name
            result[name] = (dtype, shape)
    return result


def write(path, named, prefix=""):
    """Returns the size of the file."""
    header, end = {}, 0
    for name, (dtype, shape) in named.items():
        tag, size = TYPES[dtype]
        for n in shape:
            size *= n
        header[prefix + name] = {"dtype": tag, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return 8 + len(text) + end
