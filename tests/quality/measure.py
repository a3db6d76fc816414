"""Measures what the quantizers do to real inputs, and writes the tables of docs/quality.md.

measure.py QMILL ABACUS DATA [--write docs/quality.md]     QMILL and ABACUS: the programs; DATA: tests/data/abacus

Every figure is of files that qmill wrote: output errors from `qmill compare --calibration-data` on rows that no conversion has seen, losses
and divergences from the model itself, seconds and memory from the report of the conversion.
"""

import argparse
import json
import math
import re
import subprocess
import tempfile

import torch
from safetensors.torch import save_file

QUANTIZERS = [
    ("rtn", ["--optimizer", "rtn"], "off", False),
    ("rtn, rotated", ["--optimizer", "rtn"], "any", False),
    ("learned rounding, no data", ["--optimizer", "learned_rounding"], "off", False),
    ("learned rounding", ["--optimizer", "learned_rounding"], "off", True),
    ("gptq", ["--optimizer", "gptq"], "off", True),
    ("gptq, activation order", ["--optimizer", "gptq", "--gptq-actorder"], "off", True),
    ("gptq, rotated", ["--optimizer", "gptq"], "any", True),
    ("gptq, rotated, activation order", ["--optimizer", "gptq", "--gptq-actorder"], "any", True),
    ("gptq, activation order, scale search", ["--optimizer", "gptq", "--gptq-actorder", "--scale-search", "hessian"], "off", True),
    ("gptq, rotated, activation order, scale search", ["--optimizer", "gptq", "--gptq-actorder", "--scale-search", "hessian"], "any", True),
    (
        "gptq, activation order, scale search, 3 descent passes",
        ["--optimizer", "gptq", "--gptq-actorder", "--scale-search", "hessian", "--descent-passes", "3"],
        "off",
        True,
    ),
    (
        "gptq, rotated, activation order, scale search, 3 descent passes",
        ["--optimizer", "gptq", "--gptq-actorder", "--scale-search", "hessian", "--descent-passes", "3"],
        "any",
        True,
    ),
    ("quip", ["--optimizer", "quip"], "off", True),
    ("quip, stored transformed", ["--optimizer", "quip", "--quip-store-transformed"], "any", True),
    (
        "quip, stored transformed, full layout",
        ["--optimizer", "quip", "--quip-store-transformed", "--quip-transformed-layout", "full"],
        None,
        True,
    ),
]

# Names, flags, and which of the quantizers above it makes sense for.
TARGETS = [
    ("INT8 per row", ["--format", "int8"], lambda rotation: True),
    ("INT8 one scale", ["--format", "int8", "--scaling-mode", "tensor"], lambda rotation: rotation == "off"),
    ("INT4 per row", ["--format", "int4", "--scale-search", "off"], lambda rotation: rotation == "off"),
    ("INT4 rotated", ["--format", "int4", "--scale-search", "off"], lambda rotation: rotation == "any"),
]

# The same of formats with one layout each.
FLOATS_AND_LEVELS = [
    ("FP8 (E4M3)", ["--format", "float8_e4m3fn"], lambda rotation: rotation == "off"),
    ("MXFP8", ["--format", "mxfp8"], lambda rotation: rotation == "off"),
    ("W4A8", ["--format", "asym_w4a8_int8"], lambda rotation: rotation == "any"),
    ("NVFP4", ["--format", "nvfp4"], lambda rotation: rotation == "off"),
]


def run(words):
    result = subprocess.run(words, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(words)}\nfailed with status {result.returncode}: {result.stderr}")
    return result.stdout


def synthetic_model(folder):
    """Heavy-tailed weights; correlated inputs, a few columns of which are large in all rows. Returns model, calibration, held-out rows."""
    generator = torch.Generator().manual_seed(1)
    model, rows, unseen = {}, {}, {}
    for layer, (n, k) in {"attention": (768, 768), "up": (2048, 768), "down": (768, 2048)}.items():
        weight = torch.randn(n, k, generator=generator) * 0.02
        tails = torch.randn(n, k, generator=generator)
        model[f"{layer}.weight"] = (weight * (1 + 0.3 * tails**2)).bfloat16()
        mixing = torch.randn(k // 4, k, generator=generator) / math.sqrt(k / 4)
        sizes = torch.exp(0.5 * torch.randn(k, generator=generator))
        sizes[torch.randperm(k, generator=generator)[: k // 128]] *= 20

        def inputs(count):
            mixed = torch.randn(count, k // 4, generator=generator) @ mixing
            return ((mixed + 0.3 * torch.randn(count, k, generator=generator)) * sizes).contiguous()

        rows[f"{layer}.input"] = inputs(8 * 2048)
        unseen[f"{layer}.input"] = inputs(4096)
    paths = [f"{folder}/synthetic.safetensors", f"{folder}/synthetic_rows.safetensors", f"{folder}/synthetic_unseen.safetensors"]
    for path, tensors in zip(paths, (model, rows, unseen)):
        save_file(tensors, path)
    return paths


def abacus_model(folder, abacus, data):
    model = f"{data}/abacus.safetensors"
    rows, unseen = f"{folder}/rows.safetensors", f"{folder}/unseen.safetensors"
    run([abacus, "capture", model, rows, "10000"])
    run([abacus, "capture", model, unseen, "20000", f"{data}/heldout.txt"])
    return [model, rows, unseen]


class Measurement:
    def __init__(self, qmill, paths, folder):
        self.qmill, self.folder = qmill, folder
        self.model, self.rows, self.unseen = paths
        self.output = f"{folder}/quantized.safetensors"

    def convert(self, flags, calibrated):
        # Embeddings are looked up, not multiplied with: they have no inputs to be judged by.
        words = [self.qmill, "-i", self.model, "--filter", "none", "--exclude-layers", "embedding", "-o", self.output, "--overwrite", "--no-sync", "--json", *flags]
        if calibrated:
            words += ["--calibration-data", self.rows, "--calib-samples", "1000000"]
        report = json.loads(run(words))
        quality = json.loads(run([self.qmill, "compare", self.output, self.model, "--calibration-data", self.unseen, "--json"]))
        errors = {layer["name"]: layer["output_error"] for layer in quality["layers"] if "output_error" in layer}
        seconds = [layer["seconds"] for layer in report["layers"]]
        return {
            "sqnr": quality["mean_sqnr_db"],
            "error": sum(errors.values()) / len(errors),
            "errors": errors,
            "seconds": sum(seconds) / len(seconds),
            "memory": report["peak_memory_bytes"] / 2**20,
        }


def answers(abacus, model, output, data):
    text = run([abacus, "compare", model, output, f"{data}/heldout.txt"])
    losses = re.findall(r"loss (\S+), right answers \S+ % \((\d+) of", text)
    return {
        "loss": float(losses[1][0]) - float(losses[0][0]),
        "right": int(losses[1][1]),
        "divergence": float(re.search(r"divergence\s+(\S+)", text).group(1)),
    }


def table(measurement, targets, score=None):
    lines = ["| stored as | quantizer | SQNR dB | output error | x rtn |" + (" loss | divergence | right |" if score else "") + " s per layer |"]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    results = {}
    for target, target_flags, fits in targets:
        for name, flags, rotation, calibrated in QUANTIZERS:
            if not fits(rotation):
                continue
            if rotation is None and target != "INT8 per row":
                continue
            words = target_flags + flags
            if "hessian" in flags or "rtn" in flags:
                words = [word for word in target_flags if word not in ("--scale-search", "off")] + flags
            if rotation is not None and "one scale" not in target:
                words += ["--convrot", rotation]
            figures = measurement.convert(words, calibrated)
            results[target, name] = figures
            base = results.get((target, "rtn")) or results[target, "rtn, rotated"]
            line = f"| {target} | {name} | {figures['sqnr']:.2f} | {figures['error']:.5f} | {figures['error'] / base['error']:.3f} |"
            if score:
                figures |= score(measurement.output)
                line += f" {figures['loss']:+.5f} | {figures['divergence']:.2e} | {figures['right']} |"
            lines.append(line + f" {figures['seconds']:.3f} |")
    return lines


def memory(measurement):
    lines = ["| quantizer | peak MiB |", "|---|---|"]
    for name, flags, rotation, calibrated in QUANTIZERS:
        figures = measurement.convert(flags + (["--convrot", rotation] if rotation else []), calibrated)
        lines.append(f"| {name} | {figures['memory']:.0f} |")
    return lines


def few_rows(measurement, folder):
    """Calibrates with 100 rows: the layer that comes off worst against rtn."""
    from safetensors import safe_open

    plain = measurement.convert(["--optimizer", "rtn", "--convrot", "off"], False)
    worst = {}
    for first in (0, 2500, 5000):
        with safe_open(measurement.rows, "pt") as file:
            save_file({key: file.get_tensor(key)[first : first + 100].contiguous() for key in file.keys()}, f"{folder}/few.safetensors")
        few = Measurement(measurement.qmill, (measurement.model, f"{folder}/few.safetensors", measurement.unseen), folder)
        found = few.convert(["--optimizer", "gptq", "--convrot", "off"], True)
        for layer, error in found["errors"].items():
            worst[first, layer] = error / plain["errors"][layer]
    case = max(worst, key=worst.get)
    return [f"gptq with rows {case[0]} to {case[0] + 99} alone: the worst layer, `{case[1]}`, has {worst[case]:.3f} x the output error of rtn "
            f"(mean over three sets of 100 rows and all layers: {sum(worst.values()) / len(worst):.3f} x)."]


def write(path, name, lines):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    begin, end = f"<!-- {name}: written by tests/quality/measure.py -->\n", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    after = rest.split(end, 1)[1]
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + begin + "\n".join(lines) + "\n" + end + after)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("qmill")
    parser.add_argument("abacus")
    parser.add_argument("data")
    parser.add_argument("--write", metavar="FILE")
    names = ("abacus", "abacus, other formats", "few rows", "synthetic", "synthetic, other formats", "memory")
    parser.add_argument("--only", choices=names, help="one of the tables")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        trained = Measurement(arguments.qmill, abacus_model(folder, arguments.abacus, arguments.data), folder)
        synthetic = Measurement(arguments.qmill, synthetic_model(folder), folder)
        def answered(output):
            return answers(arguments.abacus, trained.model, output, arguments.data)

        tables = {
            "abacus": lambda: table(trained, TARGETS, answered),
            "abacus, other formats": lambda: table(trained, FLOATS_AND_LEVELS, answered),
            "few rows": lambda: few_rows(trained, folder),
            "synthetic": lambda: table(synthetic, TARGETS),
            "synthetic, other formats": lambda: table(synthetic, FLOATS_AND_LEVELS),
            "memory": lambda: memory(synthetic),
        }
        for name, measure in tables.items():
            if arguments.only not in (None, name):
                continue
            lines = measure()
            print("\n".join(lines), flush=True)
            if arguments.write:
                write(arguments.write, name, lines)


main()
