"""Whole conversions of a 1 GB model against copying the same bytes: whole_run.py QMILL [ROUNDS]

Copying reads the input and writes as many bytes as the output has. Both are measured in turn, with and without waiting
for the disk, and the medians are compared. The files lie in TMPDIR (about 2.2 GB for the time of the run).
"""

import json
import os
import random
import statistics
import struct
import sys
import tempfile
import time

SHAPES = [(4096, 4096)] * 4 + [(10240, 4096)] * 2 + [(4096, 10240)]
CHUNK = 1 << 20


def make_model(path):
    """About 1.07 GB of BF16 layers with normal values (one megabyte of them, over and over)."""
    header, offset = {}, 0
    for i in range(22):
        rows, columns = SHAPES[i % len(SHAPES)]
        if offset + 2 * rows * columns > 1.08e9:
            rows, columns = 4096, 4096
        if offset + 2 * rows * columns > 1.1e9:
            break
        size = 2 * rows * columns
        header[f"blocks.{i}.weight"] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = random.Random(1)
    values = b"".join(struct.pack("<f", generator.gauss(0, 0.02))[2:] for _ in range(CHUNK // 2))
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in range(offset // CHUNK):
            file.write(values)
        file.write(values[: offset % CHUNK])


def copy(source, target, size, sync):
    """Seconds for reading all of source and writing `size` bytes."""
    buffer = bytearray(CHUNK)
    start = time.perf_counter()
    left = size
    with open(source, "rb", buffering=0) as reader, open(target, "wb", buffering=0) as writer:
        while count := reader.readinto(buffer):
            if left > 0:
                left -= writer.write(memoryview(buffer)[: min(count, left)])
        if sync:
            os.fsync(writer.fileno())
    return time.perf_counter() - start


def run(words):
    """(seconds, peak MiB) of a program."""
    start = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(words[0], words, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(words)} failed with status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main():
    qmill = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/model.safetensors", f"{folder}/out.safetensors"
        make_model(source)
        convert = [qmill, "-i", source, "-o", target, "--overwrite", "--verbose", "MINIMAL", "--filter", "none"]
        run(convert)
        size = os.path.getsize(target)
        figures = {"copy": [], "convert": [], "copy, synced": [], "convert, synced": [], "start": []}
        peak = 0.0
        for _ in range(rounds):
            for suffix, sync in (("", False), (", synced", True)):
                os.unlink(target)
                figures["copy" + suffix].append(copy(source, target, size, sync))
                os.unlink(target)
                seconds, memory = run(convert + ([] if sync else ["--no-sync"]))
                figures["convert" + suffix].append(seconds)
                peak = max(peak, memory)
            figures["start"].append(run([qmill, "--version"])[0])
        medians = {name: statistics.median(values) for name, values in figures.items()}
        print(f"\nWhole conversion of a {os.path.getsize(source) / 1e9:.2f} GB model (BF16 -> INT8 per row, rotated), median of {rounds}")
        for name, values in figures.items():
            print(f"  {name:<16} {medians[name]:6.2f} s   ({min(values):.2f} to {max(values):.2f})")
        for suffix in ("", ", synced"):
            ratio = (medians["convert" + suffix] - medians["start"]) / medians["copy" + suffix]
            print(f"  convert{suffix}: {ratio:.2f}x the copy + {medians['start']:.2f} s of start-up")
        print(f"  peak memory      {peak:6.0f} MiB")


if __name__ == "__main__":
    main()
