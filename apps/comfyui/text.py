"""What the nodes say: results of qmill as text for people."""

from __future__ import annotations

from collections import Counter
from typing import Any


def recording_line(account: Any) -> str:
    """One line about a qmill.recording.RecordingAccount: layers, rows, bytes, and what matched nothing."""
    rows = account.rows.values()
    parts = [
        f"{_counted(account.layers, 'layer')} with {min(rows, default=0)} to {max(rows, default=0)} rows",
        f"{size(account.bytes)} in '{account.path}'",
    ]
    for count, what in (
        (len(account.layers_without_input), "not called"),
        (len(account.modules_not_in_checkpoint), "of the model not in the checkpoint"),
        (len(account.checkpoint_layers_without_module), "of the checkpoint not in the model"),
        (len(account.non_finite_rows), "with rows that are not finite, which were left out"),
        (len(account.skipped), "with inputs that cannot be recorded"),
    ):
        if count:
            parts.append(f"{_counted(count, 'layer')} {what}")
    return "; ".join(parts)


def conversion(result: Any) -> str:
    """Lines about a qmill ConvertResult: file, sizes, layers, quality, warnings."""
    formats = Counter(layer.format for layer in result.layers)
    lines = [
        f"{result.output}",
        f"{size(result.input_bytes)} became {size(result.output_bytes)}",
        f"model: {result.architecture or 'not known'}; filters: {', '.join(result.filters) or 'none'}",
        f"{_counted(len(result.layers), 'layer')}: {_counts(formats)}; quantizer: {result.quantizer}",
    ]
    if result.mean_sqnr_db is not None:
        lines.append(f"mean SQNR of the weights: {result.mean_sqnr_db:.2f} dB")
    if result.mean_output_error is not None:
        line = f"mean relative error of the outputs: {result.mean_output_error:.4f}"
        if result.mean_rounding_output_error is not None:
            line += f" (rounding to nearest: {result.mean_rounding_output_error:.4f})"
        lines.append(line)
    lines += [f"warning: {warning}" for warning in result.warnings]
    return "\n".join(lines)


def inspection(found: Any) -> str:
    """Lines about a qmill Inspection: architecture, layouts of the layers, element types of all tensors."""
    layouts = Counter(layer.layout for layer in found.layers if layer.quantized)
    types = Counter(tensor.stored_type or tensor.dtype for tensor in found.tensors)
    lines = [
        f"model: {found.architecture or 'not known'}; filter: {found.filter or 'none'}",
        f"{sum(layouts.values())} of {len(found.layers)} layers are quantized: {_counts(layouts) or 'none'}",
        f"{_counted(len(found.tensors), 'tensor')}: {_counts(types)}",
    ]
    if found.quantized_by is not None:
        lines.append(f"quantized by another tool: {found.quantized_by}")
    return "\n".join(lines)


def verification(verdict: Any) -> str:
    """Lines about a qmill Verification: one per program, then one per finding."""
    lines = []
    for reader in verdict.readers:
        answer = {True: "loads it", False: "does not load it", None: "not known"}[reader.loads]
        since = f", since {reader.since}" if reader.loads and reader.since else ""
        because = f": {reader.because}" if reader.because else ""
        lines.append(f"{reader.name}: {answer}{since}{because}")
    lines += [f"{finding.level} {finding.rule}: {finding.tensor}: {finding.text}" for finding in verdict.findings]
    return "\n".join(lines)


def size(count: int) -> str:
    """Bytes with a decimal unit."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            break
        value /= 1000
    else:
        unit = "GB"
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())
