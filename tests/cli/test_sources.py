"""Sources that are not plain safetensors: GGUF, torch.save, and files that are quantized already. What comes out is compared with what
Python computes from the same bytes."""

import json
import math
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import torch
from safetensors.torch import save_file

from support import ABACUS, SOURCE, TempFolder, decode, qmill, qmill_json, read, sqnr_db, unpack_int4

GOLDEN = SOURCE / "tests" / "golden"


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Sources(TempFolder):
    def convert(self, source, *flags, name="out.safetensors"):
        qmill("-i", source, "-o", self.folder / name, "--overwrite", *flags)
        return read(self.folder / name)

    def assertSameTensors(self, a, b):
        self.assertEqual(sorted(a), sorted(b))
        for name in a:
            self.assertEqual((a[name].dtype, a[name].shape), (b[name].dtype, b[name].shape), name)
            self.assertEqual(bytes(a[name].contiguous().reshape(-1).view(torch.uint8).tolist()),
                             bytes(b[name].contiguous().reshape(-1).view(torch.uint8).tolist()), name)


# GGUF ------------------------------------------------------------------------------------------------------------------------------------

GGUF_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 30}


def gguf_text(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


class Q8:
    """A matrix in blocks of 32 values with one F16 factor."""

    kind = 8

    def __init__(self, rows, columns, seed):
        self.shape = (rows, columns)
        generator = torch.Generator().manual_seed(seed)
        self.q = torch.randint(-128, 128, (rows * columns // 32, 32), generator=generator).to(torch.int8)
        self.d = torch.rand(rows * columns // 32, generator=generator).half()

    def bytes(self):
        return b"".join(struct.pack("<e32b", d, *q) for d, q in zip(self.d.tolist(), self.q.tolist()))

    def values(self):
        return (self.d.double()[:, None] * self.q.double()).float().reshape(self.shape)


def raw(tensor):
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())


def write_gguf(path, tensors, pairs=(), version=3, alignment=32):
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs)
    data = b""
    for name, tensor in tensors.items():
        data += b"\0" * (-len(data) % alignment)
        is_plain = isinstance(tensor, torch.Tensor)
        kind = GGUF_TYPES[tensor.dtype] if is_plain else tensor.kind
        shape = tuple(reversed(tensor.shape))
        header += gguf_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += raw(tensor) if is_plain else tensor.bytes()
    path.write_bytes(header + b"\0" * (-len(header) % alignment) + data)
    return path


class Gguf(Sources):
    def setUp(self):
        super().setUp()
        self.tensors = {
            "blk.0.f32.weight": randn(24, 64),
            "blk.0.f16.weight": randn(8, 512, seed=1).half(),
            "blk.0.bf16.weight": randn(16, 256, seed=2).bfloat16(),
            "norm.weight": randn(7, seed=3),
            "conv.kernel": randn(2, 3, 4, 5, seed=4).half(),
        }
        self.q8 = {"blk.1.q8.weight": Q8(10, 256, 5), "blk.1.q8_other": Q8(3, 96, 6)}

    def test_it_converts_to_the_same_tensors_as_the_safetensors_file(self):
        plain = self.model({**self.tensors, **{name: tensor.values() for name, tensor in self.q8.items()}})
        for version, alignment in ((2, 32), (3, 32), (3, 4096)):
            pairs = [gguf_text("general.alignment") + struct.pack("<II", 4, alignment)]
            source = write_gguf(self.folder / "model.gguf", {**self.tensors, **self.q8}, pairs, version, alignment)
            for flags in ((), ("--format", "int4", "--threads", "1")):
                self.assertSameTensors(self.convert(source, *flags)[0], self.convert(plain, *flags, name="plain.safetensors")[0])

    def test_q8_0_that_is_not_quantized_is_its_exact_product_in_f32(self):
        source = write_gguf(self.folder / "model.gguf", {**self.tensors, **self.q8})
        tensors, _ = self.convert(source)
        self.assertEqual(tensors["blk.1.q8_other"].dtype, torch.float32)
        self.assertTrue(torch.equal(tensors["blk.1.q8_other"], self.q8["blk.1.q8_other"].values()))

    def test_scalar_metadata_survive_and_arrays_are_left_out(self):
        pairs = [
            gguf_text("general.architecture") + struct.pack("<I", 8) + gguf_text("llama"),
            gguf_text("llama.block_count") + struct.pack("<II", 4, 7),
            gguf_text("llama.rope.freq_base") + struct.pack("<If", 6, 10000),
            gguf_text("tokens") + struct.pack("<IIQ", 9, 8, 2) + gguf_text("a") + gguf_text("b"),
        ]
        source = write_gguf(self.folder / "model.gguf", self.tensors, pairs)
        metadata = {key: value for key, value in self.convert(source)[1].items() if not key.startswith(("qmill.", "_"))}
        self.assertEqual(metadata, {"general.architecture": "llama", "llama.block_count": "7", "llama.rope.freq_base": "10000"})

    def test_inspect_and_plan_read_it(self):
        source = write_gguf(self.folder / "model.gguf", {**self.tensors, **self.q8})
        listed = {tensor["name"]: (tensor["dtype"], tensor["shape"]) for tensor in qmill_json("inspect", source)["tensors"]}
        self.assertEqual(listed["blk.0.f32.weight"], ("F32", [24, 64]))
        self.assertEqual(listed["conv.kernel"], ("F16", [2, 3, 4, 5]))
        self.assertEqual(listed["blk.1.q8.weight"], ("F32", [10, 256]))
        self.assertEqual(len(qmill_json("plan", source)["layers"]), 4)

    def test_the_name_does_not_matter(self):
        source = write_gguf(self.folder / "model.something", self.tensors)
        qmill("-i", source)
        qmill("-i", write_gguf(self.folder / "other.gguf", self.tensors))
        self.assertIn("other_auto_int8.safetensors", self.names())

    def test_other_types_are_refused_by_name(self):
        path = write_gguf(self.folder / "model.gguf", self.tensors)
        data = bytearray(path.read_bytes())
        at = data.index(b"norm.weight") + len(b"norm.weight") + 4 + 8
        data[at : at + 4] = struct.pack("<I", 16)
        path.write_bytes(data)
        self.refused("-i", path, says=("model.gguf", "norm.weight", "IQ2_XXS", "Q8_0"))

    def test_files_that_are_cut_short(self):
        path = write_gguf(self.folder / "model.gguf", self.tensors)
        data = path.read_bytes()
        for size in (0, 3, 4, 20, 50, 150, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:size])
            self.refused("-i", path, says=("model.gguf",))


# torch.save ------------------------------------------------------------------------------------------------------------------------------

class RunsCode:
    """Unpickled by Python, this would make a file."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


class Pytorch(Sources):
    def saved(self, value, name="model.pt", **options):
        torch.save(value, self.folder / name, **options)
        return self.folder / name

    def model_tensors(self):
        base = randn(40, 96, seed=7)
        return OrderedDict({
            "a.weight": randn(16, 256),
            "b.weight": randn(8, 512, seed=1).bfloat16(),
            "c.weight": torch.nn.Parameter(randn(24, 64, seed=2).half()),
            "transposed.weight": base.t(),
            "columns.weight": base[3:20, 5:70],
            "steps": torch.arange(100)[3:90:7],
            "expanded": randn(1, 6, seed=3).expand(5, 6),
            "permuted": randn(2, 3, 4, seed=4).permute(2, 0, 1),
            "tied": base,
            "bool": torch.tensor([True, False, True]),
            "int": torch.arange(5, dtype=torch.int32),
            "i64": torch.tensor(7),
            "u8": torch.arange(9, dtype=torch.uint8),
            "u16": torch.arange(9).to(torch.uint16),
            "f64": randn(3, seed=5).double(),
            "c64": torch.complex(randn(3), randn(3, seed=6)),
            "f8": randn(4, 4, seed=8).to(torch.float8_e4m3fn),
            "empty": torch.zeros(0, 3),
        })

    def plain(self, tensors):
        return self.model({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()})

    def test_it_converts_to_the_same_tensors_as_the_safetensors_file(self):
        tensors = self.model_tensors()
        plain = self.plain(tensors)
        for flags in ((), ("--fp16", "--keep-dtype", "f32")):
            expected = self.convert(plain, *flags, name="plain.safetensors")[0]
            for name, options in (("model.pt", {}), ("model.bin", {"pickle_protocol": 4}), ("model.ckpt", {"pickle_protocol": 5})):
                self.assertSameTensors(self.convert(self.saved(tensors, name, **options), *flags)[0], expected)

    def test_a_module_with_its_metadata(self):
        module = torch.nn.Sequential(torch.nn.Linear(256, 16), torch.nn.LayerNorm(16))
        state = module.state_dict()
        self.assertTrue(hasattr(state, "_metadata"))
        expected = self.convert(self.plain(state), name="plain.safetensors")[0]
        self.assertSameTensors(self.convert(self.saved(state))[0], expected)

    def test_wrappers_that_hold_all_tensors_are_left_out_of_the_names(self):
        tensors = {"a.weight": randn(16, 256), "b": randn(4)}
        expected = self.convert(self.plain(tensors), name="plain.safetensors")[0]
        log = {"epoch": 3, "lr": 0.1, "big": 1 << 80, "none": None, "flags": [True, "x", b"y", (1, 2)], "sizes": torch.Size([1, 2])}
        for value in ({"state_dict": tensors, **log}, {"model": {"state_dict": tensors}}, {"params_ema": tensors}):
            self.assertSameTensors(self.convert(self.saved(value))[0], expected)
        optimizer = {"state": {0: {"exp_avg": randn(4)}}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}
        names = set(self.convert(self.saved({"model": tensors, "optimizer": optimizer}))[0])
        self.assertIn("model.b", names)
        self.assertIn("optimizer.state.0.exp_avg", names)

    def test_code_is_named_and_not_run(self):
        touched = self.folder / "touched"
        cases = {
            f"{os.system.__module__}.system": RunsCode(os.system, f"touch {touched}"),
            "builtins.eval": RunsCode(eval, f"open({str(touched)!r}, 'w')"),
            "builtins.exec": RunsCode(exec, f"open({str(touched)!r}, 'w')"),
        }
        for name, value in cases.items():
            for protocol in (2, 4):
                source = self.saved({"a.weight": randn(16, 256), "x": value}, pickle_protocol=protocol)
                says = name if protocol == 4 else name.replace("builtins", "__builtin__")
                self.refused("-i", source, says=("model.pt", says, "never run"))
                self.refused("inspect", source, says=(says,))
                self.assertFalse(touched.exists())
        torch.load(source, weights_only=False)  # the file really does it where it is run
        self.assertTrue(touched.exists())

    def test_whole_models_are_refused_by_the_name_of_their_class(self):
        self.refused("-i", self.saved(torch.nn.Linear(4, 4)), says=("torch.nn.modules.linear.Linear", "state_dict()"))

    def test_files_of_other_kinds_are_refused_with_advice(self):
        tensors = {"a.weight": randn(16, 256)}
        legacy = self.saved(tensors, "legacy.pt", _use_new_zipfile_serialization=False)
        self.refused("-i", legacy, says=("legacy.pt", "PyTorch 1.6 or newer", "torch.save"))
        script = self.folder / "script.pt"
        torch.jit.save(torch.jit.script(torch.nn.Linear(4, 4)), script)
        self.refused("-i", script, says=("script.pt", "TorchScript"))
        (self.folder / "plain.pth").write_bytes(pickle.dumps({"a": 1}))
        self.refused("-i", self.folder / "plain.pth", says=("plain.pth", "torch.save"))
        with zipfile.ZipFile(self.folder / "other.bin", "w") as archive:
            archive.writestr("readme.txt", "hello")
        self.refused("-i", self.folder / "other.bin", says=("other.bin", "data.pkl"))
        (self.folder / "text.bin").write_text("hello, this is no model")
        self.refused("-i", self.folder / "text.bin", says=("text.bin", "no loader reads"))

    def test_archives_that_were_packed_again(self):
        source = self.saved({"a.weight": randn(16, 256)})
        packed = self.folder / "packed.pt"
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(packed, "w") as new:
            for info in old.infolist():
                new.writestr(info.filename, old.read(info))
        self.assertSameTensors(self.convert(packed)[0], self.convert(source, name="other.safetensors")[0])
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
            for info in old.infolist():
                new.writestr(info.filename, old.read(info))
        self.refused("-i", packed, says=("packed.pt", "compressed"))
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(packed, "w") as new:
            for info in old.infolist():
                new.writestr(info.filename, b"big" if info.filename.endswith("byteorder") else old.read(info))
        self.refused("-i", packed, says=("packed.pt", "'big'"))

    def test_files_that_are_cut_short(self):
        source = self.saved({"a.weight": randn(16, 256)})
        data = source.read_bytes()
        for size in (4, 30, 100, len(data) // 2, len(data) - 1):
            source.write_bytes(data[:size])
            self.refused("-i", source, says=("model.pt",))

    def test_types_without_a_counterpart_are_refused_by_name(self):
        self.refused("-i", self.saved({"x": torch.zeros(2, dtype=torch.complex128)}), says=("'x'", "ComplexDouble"))
        self.refused("-i", self.saved({"x": torch.complex(randn(3), randn(3)).conj()}), says=("conjugate",))

    def test_a_huge_expanded_view_is_refused_by_name(self):
        self.refused("-i", self.saved({"x": torch.zeros(1).expand(1 << 20, 1 << 20)}), says=("'x'", "expanded"))


# Quantized sources -----------------------------------------------------------------------------------------------------------------------

def rotate_f32(x, group):
    """The regular Hadamard transform in F32, step by step as docs/formats.md says."""
    shape = x.shape
    x = x.float().reshape(-1, group) * (1 / math.sqrt(group))
    stride = 1
    while stride < group:
        y = x.reshape(-1, group // (4 * stride), 4, stride)
        a, b, c, d = y.unbind(2)
        p, m, q, n = a + b, a - b, c + d, c - d
        x = torch.stack((p + n, p - n, q + m, q - m), 2).reshape(-1, group)
        stride *= 4
    return x.reshape(shape)


def decode_f32(tensors, layer):
    """The weight in F32, each step rounded as a reader rounds it; None for layouts whose steps depend on the reader."""
    weight = tensors[f"{layer}.weight"]
    marker = json.loads(bytes(tensors[f"{layer}.comfy_quant"].tolist())) if f"{layer}.comfy_quant" in tensors else {}
    if marker.get("format") == "hadamard_quip":
        return None
    scale = tensors.get(f"{layer}.weight_scale", tensors.get(f"{layer}.scale_weight"))
    codes = unpack_int4(weight) if marker.get("format") in ("convrot_w4a4", "int4_rowwise") else weight
    codes = codes.float()
    if scale.dim() == 1 and scale.numel() > 1:
        scale = scale[:, None]
    if scale.dim() == 2:
        scale = scale.repeat_interleave(codes.shape[0] // scale.shape[0], 0).repeat_interleave(codes.shape[1] // scale.shape[1], 1)
    values = codes * scale
    if marker.get("convrot") or marker.get("format") == "convrot_w4a4":
        values = rotate_f32(values, marker["convrot_groupsize"])
    return values


OWN_FORMATS = {
    "rotated": [],
    "rotated_any": ["--convrot", "any"],
    "row": ["--convrot", "off"],
    "tensor": ["--scaling-mode", "tensor"],
    "block": ["--block-size", "64"],
    "axis": ["--scaling-mode", "axis"],
    "legacy_row": ["--no-comfy-quant"],
    "legacy_tensor": ["--no-comfy-quant", "--scaling-mode", "tensor", "--input-scale"],
    "legacy_block": ["--no-comfy-quant", "--block-size", "32"],
    "int4": ["--format", "int4", "--target", "any"],
    "int4_off": ["--format", "int4", "--convrot", "off"],
    "hadamard_quip": ["--optimizer", "quip", "--quip-store-transformed", "--quip-transformed-layout", "full"],
}


def fp8_layer(tensors, name, weight, kind=torch.float8_e4m3fn, suffix="weight_scale", marker=True):
    largest = 448 if kind == torch.float8_e4m3fn else 57344
    scale = weight.abs().max() / largest
    tensors[f"{name}.weight"] = (weight / scale).to(kind)
    tensors[f"{name}.{suffix}"] = scale
    if marker:
        text = json.dumps({"format": "float8_e4m3fn" if kind == torch.float8_e4m3fn else "float8_e5m2"}).encode()
        tensors[f"{name}.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
    return tensors[f"{name}.weight"].float() * scale


class Quantized(Sources):
    def own(self, name):
        output = self.folder / f"{name}.safetensors"
        if not output.exists():
            qmill("-i", ABACUS, "-o", output, *OWN_FORMATS[name])
        return output

    def comfy_fp8(self):
        """(file, values by weight): both types, a bias, an input scale, a plain layer."""
        tensors = {"a.bias": randn(32), "plain.weight": randn(8, 256, seed=9).bfloat16()}
        values = {
            "a.weight": fp8_layer(tensors, "a", randn(32, 256)),
            "b.weight": fp8_layer(tensors, "b", randn(16, 512, seed=1), torch.float8_e5m2),
        }
        tensors["a.input_scale"] = torch.tensor(0.5)
        header = {"format_version": "1.0", "layers": {"a": {"format": "float8_e4m3fn"}, "b": {"format": "float8_e5m2"}}}
        return self.model(tensors, "comfy_fp8.safetensors", {"_quantization_metadata": json.dumps(header), "author": "me"}), values

    def scaled_fp8(self):
        tensors = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn), "norm": randn(7)}
        values = {"a.weight": fp8_layer(tensors, "a", randn(32, 256), suffix="scale_weight", marker=False)}
        tensors["a.scale_input"] = torch.tensor(1.0)
        return self.model(tensors, "scaled_fp8.safetensors"), values

    def bare_fp8(self):
        tensors = {}
        values = {"a.weight": fp8_layer(tensors, "a", randn(32, 256), marker=False)}
        rows = randn(16, 64, seed=3)
        scale = rows.abs().amax(1, keepdim=True) / 448
        tensors.update({"rows.weight": (rows / scale).to(torch.float8_e4m3fn), "rows.weight_scale": scale})
        values["rows.weight"] = tensors["rows.weight"].float() * scale
        return self.model(tensors, "bare_fp8.safetensors"), values


class Dequantize(Quantized):
    def dequantized(self, source, dtype):
        output = self.folder / f"plain_{dtype}.safetensors"
        report = qmill_json("dequantize", source, output, "--dtype", dtype, "--overwrite")
        self.assertEqual((report["output"], report["output_bytes"]), (str(output), output.stat().st_size))
        return report, *read(output)

    def test_own_formats_decode_to_what_a_reader_computes(self):
        original, _ = read(ABACUS)
        for name in OWN_FORMATS:
            with self.subTest(name):
                stored, _ = read(self.own(name))
                report, f32, metadata = self.dequantized(self.own(name), "f32")
                layers = [layer["name"] for layer in report["layers"]]
                self.assertEqual(len(layers), 27)
                self.assertEqual(sorted(f32), sorted(original))
                self.assertNotIn("_quantization_metadata", metadata)
                self.assertEqual(metadata["qmill.dequantized"], "F32")
                _, bf16, _ = self.dequantized(self.own(name), "bf16")
                _, f16, _ = self.dequantized(self.own(name), "f16")
                for tensor in original:
                    if tensor.removesuffix(".weight") not in layers:
                        self.assertSameTensors({tensor: f32[tensor]}, {tensor: original[tensor]})
                        continue
                    expected = decode_f32(stored, tensor.removesuffix(".weight"))
                    if expected is None:
                        exact = decode(stored, tensor.removesuffix(".weight"))
                        self.assertLess((f32[tensor].double() - exact).abs().max().item(), 1e-5 * exact.abs().max().item())
                    else:
                        self.assertTrue(torch.equal(f32[tensor], expected), tensor)
                    self.assertTrue(torch.equal(bf16[tensor], f32[tensor].bfloat16()), tensor)
                    self.assertTrue(torch.equal(f16[tensor], f32[tensor].half()), tensor)

    def test_a_round_trip_has_the_quality_that_the_conversion_reported(self):
        report = qmill_json("-i", ABACUS, "-o", self.folder / "q.safetensors")
        self.dequantized(self.folder / "q.safetensors", "f32")
        original, _ = read(ABACUS)
        decoded, _ = read(self.folder / "plain_f32.safetensors")
        for layer in report["layers"]:
            error = (original[layer["name"] + ".weight"].double() - decoded[layer["name"] + ".weight"].double()).square().mean().item()
            self.assertAlmostEqual(layer["mse"], error, delta=1e-5 * error)

    def test_fp8_of_other_writers(self):
        for make, layers in ((self.comfy_fp8, 2), (self.scaled_fp8, 1), (self.bare_fp8, 2)):
            source, values = make()
            before, _ = read(source)
            report, f32, metadata = self.dequantized(source, "f32")
            self.assertEqual(len(report["layers"]), layers)
            hidden = ("weight_scale", "scale_weight", "comfy_quant", "input_scale", "scale_input", "scaled_fp8")
            self.assertEqual(sorted(f32), sorted(name for name in before if not name.endswith(hidden)))
            for name, value in values.items():
                self.assertTrue(torch.equal(f32[name], value), name)
            for name in set(f32) - set(values):
                self.assertSameTensors({name: f32[name]}, {name: before[name]})
            self.assertEqual(metadata.get("author"), "me" if make == self.comfy_fp8 else None)
            _, bf16, _ = self.dequantized(source, "bf16")
            for name, value in values.items():
                self.assertTrue(torch.equal(bf16[name], value.bfloat16()), name)

    def test_block_formats_of_other_writers(self):
        markers = {
            "nvfp4": {"format": "nvfp4"},
            "mxfp8": {"format": "mxfp8"},
            "asym_w4a8_int8": {"format": "asym_w4a8_int8", "group_size": 16, "convrot_groupsize": 256},
        }
        golden, _ = read(GOLDEN / "f16_40x1024.safetensors")
        padded = {"nvfp4": (48, 1024), "mxfp8": (64, 1024), "asym_w4a8_int8": (40, 1024)}
        tensors = {}
        for name, marker in markers.items():
            for stored, data in golden.items():
                if stored.startswith(name + ".") and not stored.endswith(".decoded"):
                    tensors[stored] = data
            tensors[f"{name}.comfy_quant"] = torch.tensor(list(json.dumps(marker).encode()), dtype=torch.uint8)
        for with_bias in (False, True):
            if with_bias:
                tensors.update({f"{name}.bias": torch.zeros(40) for name in markers})
            _, f32, _ = self.dequantized(self.model(tensors), "f32")
            self.assertEqual(len(f32), 6 if with_bias else 3)
            for name in markers:
                expected = golden[f"{name}.decoded"].double()
                found = f32[f"{name}.weight"]
                self.assertEqual(tuple(found.shape), (40, 1024) if with_bias else padded[name])
                self.assertEqual(found[40:].abs().sum().item(), 0)
                self.assertLess((found[: len(expected)].double() - expected).abs().max().item(), 1e-6 * expected.abs().max().item())

    def test_shards_and_the_default_name(self):
        folder = self.folder / "model"
        folder.mkdir()
        first, second = {}, {}
        values = {"a.weight": fp8_layer(first, "a", randn(32, 256)), "b.weight": fp8_layer(second, "b", randn(16, 256, seed=1))}
        save_file(first, folder / "x-1.safetensors")
        save_file(second, folder / "x-2.safetensors")
        report = qmill_json("dequantize", str(folder) + "/")
        self.assertEqual(report["output"], str(self.folder / "model_bf16.safetensors"))
        tensors, _ = read(self.folder / "model_bf16.safetensors")
        for name, value in values.items():
            self.assertTrue(torch.equal(tensors[name], value.bfloat16()))

    def test_the_summary_says_it_to_people(self):
        text, _ = qmill("dequantize", self.comfy_fp8()[0])
        for part in ("comfy_fp8_bf16.safetensors", "float8_e4m3fn, 1 layer", "float8_e5m2, 1 layer", "BF16", "stays lost"):
            self.assertIn(part, text)

    def test_refusals(self):
        quantized = self.own("row")
        self.refused("dequantize", status=2)
        self.refused("dequantize", quantized, quantized, "--overwrite", says=("same file",), status=2)
        self.refused("dequantize", quantized, "--dtype", "f64", says=("allowed: bf16, f16, f32",), status=2)
        plain = self.model({"a.weight": randn(8, 256)})
        self.refused("dequantize", plain, says=("model.safetensors", "no layer of it is quantized"))
        (self.folder / "there.safetensors").write_text("precious")
        self.refused("dequantize", quantized, self.folder / "there.safetensors", says=("exists already", "--overwrite"), status=2)
        self.assertEqual((self.folder / "there.safetensors").read_text(), "precious")
        self.refused("dequantize", self.folder / "none.safetensors", says=("none.safetensors", "no such file"))

    def test_values_beyond_f16(self):
        source = self.model({"a.weight": torch.full((2, 4), 448.0).to(torch.float8_e4m3fn), "a.scale_weight": torch.tensor(1000.0)})
        self.refused("dequantize", source, "--dtype", "f16", says=("a.weight", "8 of 8", "F16", "dtype"))
        qmill("dequantize", source, "--dtype", "bf16")

    def test_layers_that_nothing_decodes_are_named(self):
        marker = torch.tensor(list(b'{"format":"awq_w4a16"}'), dtype=torch.uint8)
        source = self.model({"a.weight": torch.zeros(4, 4, dtype=torch.int8), "a.comfy_quant": marker})
        for words in (("dequantize", source), ("-i", source, "--dequantize-source")):
            self.refused(*words, says=("model.safetensors", "'a'", "awq_w4a16"))
        source = self.model({"a.weight": torch.zeros(4, 4).to(torch.float8_e4m3fn), "a.weight_scale": torch.ones(4, 1, dtype=torch.uint8)})
        for words in (("dequantize", source), ("-i", source, "--dequantize-source")):
            self.refused(*words, says=("model.safetensors", "a.weight", "a.weight_scale"))


class DequantizeSource(Quantized):
    def sources(self):
        return [self.own(name) for name in ("rotated", "block", "legacy_row", "int4", "hadamard_quip")] + [
            self.comfy_fp8()[0], self.scaled_fp8()[0], self.bare_fp8()[0]]

    def test_without_the_flag_they_are_refused_with_it(self):
        for source in self.sources():
            self.refused("-i", source, says=(source.name, "quantized already", "--dequantize-source"))
            self.refused("plan", source, says=("--dequantize-source",))

    def test_it_converts_as_the_decoded_f32_file_does(self):
        for source in self.sources():
            decoded = self.folder / "decoded.safetensors"
            qmill("dequantize", source, decoded, "--dtype", "f32", "--overwrite")
            for flags in ((), ("--format", "int4", "--threads", "3"), ("--fp16",)):
                with self.subTest(f"{source.name} {flags}"):
                    direct, metadata = self.convert(source, "--dequantize-source", *flags)
                    expected, expected_metadata = self.convert(decoded, *flags, name="expected.safetensors")
                    self.assertSameTensors(direct, expected)
                    options = json.loads(metadata["qmill.options"])
                    self.assertEqual(options.pop("dequantize-source"), "on")
                    self.assertEqual(options, json.loads(expected_metadata["qmill.options"]))
                    different = {"qmill.options", "qmill.source", "qmill.dequantized"}
                    for each in (metadata, expected_metadata):
                        each["_quantization_metadata"] = json.loads(each.get("_quantization_metadata", "{}"))  # in the order of the source
                    self.assertEqual({key: value for key, value in metadata.items() if key not in different},
                                     {key: value for key, value in expected_metadata.items() if key not in different})

    def test_plan_and_report_warn_of_the_double_loss(self):
        source, _ = self.comfy_fp8()
        line = "the source was quantized (float8_e4m3fn, 1 layer; float8_e5m2, 1 layer): what that lost stays lost"
        self.assertIn(line, qmill_json("plan", source, "--dequantize-source")["warnings"])
        self.assertIn(line, qmill_json("-i", source, "-o", self.folder / "o.safetensors", "--dequantize-source")["warnings"])
        self.assertIn(line, qmill("plan", source, "--dequantize-source")[0])
        plan = {layer["name"]: layer["action"] for layer in qmill_json("plan", source, "--dequantize-source")["layers"]}
        self.assertEqual(plan, {"a": "quantize", "b": "quantize", "plain": "quantize"})

    def test_the_same_format_again_loses_next_to_nothing(self):
        source = self.own("row")
        before, after = read(source)[0], self.convert(source, "--dequantize-source", "--convrot", "off")[0]
        for name in before:
            if before[name].dtype == torch.int8:
                self.assertTrue(torch.equal(before[name], after[name]), name)

    def test_of_a_plain_source_it_changes_nothing_and_says_so(self):
        source = self.model({"a.weight": randn(8, 256)})
        self.assertIn("--dequantize-source changes nothing", " ".join(qmill_json("plan", source, "--dequantize-source")["warnings"]))

    def test_formats_that_nothing_reads_or_writes_cannot_be_asked_for(self):
        source = self.model({"a.weight": randn(8, 256)})
        for flags in (("--format", "awq_w4a16"), ("--exclude-layers", "a", "--fallback", "svdquant_w4a4"), ("--custom-layers", "a", "--custom-type", "int7")):
            self.refused("-i", source, *flags, says=("no format", f"'{flags[-1]}'", "int8"), status=2)

    def test_inspect_says_that_they_are_quantized(self):
        for source in (self.scaled_fp8()[0], self.bare_fp8()[0]):
            layers = {layer["name"]: layer for layer in qmill_json("inspect", source)["layers"]}
            self.assertEqual((layers["a"]["format"], layers["a"]["quantized"]), ("float8_e4m3fn", True))


class ScaledFp8(Quantized):
    """float8 with its scale in every spelling: type, shape, name, marked or not."""

    SHAPES = {"one": (), "one of one dimension": (1,), "one of two": (1, 1), "rows": (256,), "rows of two": (256, 1), "blocks": (2, 3)}

    def layer(self, shape, scale_type, suffix="weight_scale", marked=False, whole=False):
        """(file, values): computed here from the same bytes."""
        weight = randn(256, 300, seed=5)
        scale = (torch.rand(shape, generator=torch.Generator().manual_seed(6)) / 64 + 1e-3).to(scale_type)
        rows = scale.float()
        if shape == (2, 3):
            rows = rows.repeat_interleave(128, 0).repeat_interleave(128, 1)[:, :300]
        elif len(shape) == 1:
            rows = rows[:, None]
        codes = (weight / rows).clamp(-448, 448).to(torch.float8_e4m3fn)
        tensors = {"a.weight": codes, f"a.{suffix}": scale, "a.input_scale": torch.tensor([0.5]), "norm": randn(7)}
        if marked:
            tensors["a.comfy_quant"] = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
        if whole:
            tensors["scaled_fp8"] = torch.zeros(0, dtype=torch.float8_e4m3fn)
        return self.model(tensors), codes.float() * rows

    def test_all_spellings_decode_to_codes_times_scale(self):
        kinds = [(shape, scale_type, "weight_scale", marked, False) for shape in self.SHAPES for scale_type in (torch.float32, torch.bfloat16, torch.float16) for marked in (False, True)]
        kinds += [(shape, torch.bfloat16, suffix, False, whole) for shape in self.SHAPES for suffix in ("scale_weight", "weight_scale_inv") for whole in (False, True)]
        for shape, scale_type, suffix, marked, whole in kinds:
            with self.subTest(f"{shape} {scale_type} {suffix} {marked} {whole}"):
                source, values = self.layer(self.SHAPES[shape], scale_type, suffix, marked, whole)
                qmill("dequantize", source, self.folder / "plain.safetensors", "--dtype", "f32", "--overwrite")
                tensors, _ = read(self.folder / "plain.safetensors")
                self.assertEqual(sorted(tensors), ["a.weight", "norm"])
                self.assertTrue(torch.equal(tensors["a.weight"], values))
                self.refused("-i", source, says=("quantized already", "--dequantize-source"))

    def test_they_are_repaired_by_quantizing_them_again(self):
        for shape in self.SHAPES.values():
            source, values = self.layer(shape, torch.bfloat16, marked=True)
            tensors, _ = self.convert(source, "--dequantize-source", "--convrot", "off")
            self.assertEqual(sorted(tensors), ["a.comfy_quant", "a.weight", "a.weight_scale", "norm"])
            self.assertGreater(sqnr_db(values, decode(tensors, "a")), 35)
            self.assertTrue(json.loads(qmill("verify", self.folder / "out.safetensors", "--json")[0])["loads"])

    def test_verify_says_that_readers_stop_at_other_scales(self):
        for shape, scale_type, rule in (((), torch.bfloat16, "scale-dtype"), ((), torch.float16, "scale-dtype"), ((256, 1), torch.float32, "scale-shape")):
            source, _ = self.layer(shape, scale_type, marked=True)
            findings = json.loads(qmill("verify", source, "--json", status=1)[0])["findings"]
            self.assertIn(rule, [finding["rule"] for finding in findings if finding["level"] == "error"])

    def test_scales_that_are_no_positive_number_are_errors(self):
        for bad in (math.nan, math.inf, 0.0, -1.0):
            for shape in ((), (256, 1)):
                source, _ = self.layer(shape, torch.float32)
                tensors, _ = read(source)
                tensors["a.weight_scale"].view(-1)[-1] = bad
                source = self.model(tensors)
                for words in (("dequantize", source), ("-i", source, "--dequantize-source")):
                    self.refused(*words, says=("model.safetensors", "a.weight", "'weight_scale' is", "expected a positive number"))


class PlainFp8(Sources):
    def test_values_without_scales_are_floats_like_others(self):
        weight = randn(8, 256).to(torch.float8_e4m3fn)
        source = self.model({"a.weight": weight, "b.weight": randn(8, 256, seed=1)})
        tensors, _ = self.convert(source, "--convrot", "off")
        self.assertLess((decode(tensors, "a") - weight.double()).abs().max().item(), weight.double().abs().max().item() / 127)
        self.refused("dequantize", source, says=("no layer of it is quantized",))
