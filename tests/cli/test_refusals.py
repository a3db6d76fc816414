"""What must end in one line, the right status, and nothing left behind."""

import json
import os
import shutil
import signal
import subprocess
import time

import torch

from support import ABACUS, QMILL, TempFolder, qmill, qmill_json, read


def weight(rows, columns):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)).bfloat16()


class OddLayers(TempFolder):
    def convert(self, tensors, *flags):
        output = self.folder / "out.safetensors"
        qmill("-i", self.model(tensors), "-o", output, *flags)
        return read(output)[0]

    def test_shapes_small_and_odd(self):
        tensors = self.convert({"a.weight": weight(64, 1024), "b.weight": weight(7, 5), "c.weight": weight(1, 1)})
        self.assertEqual(json.loads(bytes(tensors["a.comfy_quant"].tolist()))["convrot_groupsize"], 256)
        self.assertEqual(json.loads(bytes(tensors["b.comfy_quant"].tolist())), {"format": "int8_tensorwise"})
        self.assertEqual(tuple(tensors["c.weight_scale"].shape), (1, 1))

    def test_no_rows_are_copied(self):
        tensors = self.convert({"a.weight": weight(8, 16), "b.weight": torch.empty(0, 16, dtype=torch.bfloat16)})
        self.assertEqual(tuple(tensors["b.weight"].shape), (0, 16))
        self.assertEqual(tensors["b.weight"].dtype, torch.bfloat16)

    def test_zeros_become_zeros(self):
        tensors = self.convert({"a.weight": torch.zeros(8, 256, dtype=torch.bfloat16)})
        self.assertEqual(tensors["a.weight"].abs().max().item(), 0)
        self.assertTrue(torch.equal(tensors["a.weight_scale"], torch.full((8, 1), 1e-30)))

    def test_block_mode_never_fails_on_a_shape(self):
        tensors = self.convert({"a.weight": weight(128, 256), "b.weight": weight(7, 5)}, "--block-size", "64")
        self.assertEqual(tuple(tensors["a.weight_scale"].shape), (2, 4))
        self.assertEqual(tuple(tensors["b.weight_scale"].shape), (7, 1))


class Refusals(TempFolder):
    def test_values_that_are_not_finite(self):
        for value, name in ((float("nan"), "NaN"), (float("inf"), "infinity")):
            bad = weight(8, 256)
            bad[3, 5] = value
            source = self.model({"good.weight": weight(8, 256), "blocks.0.bad.weight": bad})
            self.refused("-i", source, "-o", self.folder / "out.safetensors",
                         says=("model.safetensors", "blocks.0.bad.weight", f"1 of 2048 values are not finite (first: {name} at row 3, column 5)"))

    def test_values_beyond_f16(self):
        source = self.model({"a.weight": torch.full((2, 2), 1e5)})
        self.refused("-i", source, "-o", self.folder / "out.safetensors", "--fp16", says=("a.weight", "4 of 4", "65504", "--fp16-overflow clamp"))
        qmill("-i", source, "-o", self.folder / "out.safetensors", "--fp16", "--fp16-overflow", "clamp")
        self.assertEqual(read(self.folder / "out.safetensors")[0]["a.weight"].max().item(), 65504)

    def test_a_truncated_file(self):
        source = self.model({"a.weight": weight(64, 256)})
        data = source.read_bytes()
        for size in (0, 5, 8, 60, len(data) - 1):
            source.write_bytes(data[:size])
            self.refused("-i", source, "-o", self.folder / "out.safetensors", says=("model.safetensors",))

    def test_an_already_quantized_file(self):
        qmill("-i", ABACUS, "-o", self.folder / "int8.safetensors")
        self.refused("-i", self.folder / "int8.safetensors", "-o", self.folder / "out.safetensors", says=("quantized already", "use the original model"))
        legacy = self.model({"a.weight": torch.zeros(4, 4, dtype=torch.int8), "a.scale_weight": torch.ones(4, 1)})
        self.refused("-i", legacy, "-o", self.folder / "out.safetensors", says=("a.weight", "a.scale_weight"))

    def test_a_folder_that_cannot_be_written(self):
        source = self.model({"a.weight": weight(8, 256)})
        self.refused("-i", source, "-o", "/proc/out.safetensors", says=("/proc/out.safetensors",))
        self.refused("-i", source, "-o", self.folder / "missing" / "out.safetensors", says=("missing", "does not exist"))

    def test_a_disk_that_is_too_small(self):
        # A source that is a hole: its output would need half a terabyte.
        header = json.dumps({"a.weight": {"dtype": "BF16", "shape": [500000, 1000000], "data_offsets": [0, 10**12]}}).encode()
        source = self.folder / "huge.safetensors"
        source.write_bytes(len(header).to_bytes(8, "little") + header)
        os.truncate(source, 8 + len(header) + 10**12)
        self.assertLess(shutil.disk_usage(self.folder).free, 5 * 10**11, "this test needs a disk with less than 500 GB left")
        self.refused("-i", source, "-o", self.folder / "out.safetensors", says=("out.safetensors", "the file needs 500", "its disk has"))

    def test_files_that_are_not_there_or_not_models(self):
        self.refused("-i", self.folder / "none.safetensors", says=("none.safetensors", "no such file"))
        (self.folder / "notes.txt").write_text("hello, this is no model")
        self.refused("-i", self.folder / "notes.txt", says=("notes.txt", "no loader reads"))
        (self.folder / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        self.refused("-i", self.folder / "pointer.safetensors", says=("Git LFS pointer", "download the real file"))

    def test_the_input_as_output(self):
        source = self.model({"a.weight": weight(8, 256)})
        os.symlink(source, self.folder / "link.safetensors")
        os.link(source, self.folder / "hard.safetensors")
        before = source.read_bytes()
        for name in ("model", "link", "hard"):
            self.refused("-i", source, "-o", self.folder / f"{name}.safetensors", "--overwrite", says=("same file",), status=2)
        self.assertEqual(source.read_bytes(), before)

    def test_an_output_that_exists(self):
        source = self.model({"a.weight": weight(8, 256)})
        (self.folder / "out.safetensors").write_text("precious")
        self.refused("-i", source, "-o", self.folder / "out.safetensors", says=("exists already", "--overwrite"), status=2)
        self.assertEqual((self.folder / "out.safetensors").read_text(), "precious")
        qmill("-i", source, "-o", self.folder / "out.safetensors", "--overwrite")
        self.assertIn("a.weight", read(self.folder / "out.safetensors")[0])

    def test_an_output_that_is_no_file(self):
        os.mkfifo(self.folder / "pipe")
        _, error = qmill("-i", self.model({"a.weight": weight(8, 256)}), "-o", self.folder / "pipe", "--overwrite", status=2)
        self.assertIn("not a regular file", error)
        self.assertTrue((self.folder / "pipe").is_fifo())

    def test_a_report_that_would_replace_a_model(self):
        source = self.model({"a.weight": weight(8, 256)})
        before = source.read_bytes()
        output = self.folder / "out.safetensors"
        for report in (source, output):
            _, error = qmill("-i", source, "-o", output, "--overwrite", "--report", report, status=2)
            self.assertIn("same file", error)
        self.assertEqual(source.read_bytes(), before)
        self.assertFalse(output.exists())
        report = self.folder / "report.json"
        report.write_text("mine")
        qmill("-i", source, "-o", output, "--report", report, status=2)
        self.assertEqual((report.read_text(), output.exists()), ("mine", False))
        qmill("-i", source, "-o", output, "--report", report, "--overwrite")
        self.assertEqual(json.loads(report.read_text())["output"], str(output))

    def test_a_result_that_nobody_can_read(self):
        source = self.model({"a.weight": weight(8, 256)})
        with open("/dev/full", "w") as full:
            result = subprocess.run([QMILL, "inspect", source], stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual(result.returncode, 1)
        self.assertIn("cannot write the result", result.stderr)

    def test_names_cannot_command_a_terminal(self):
        source = self.model({"a\x1b[2J\nb.weight": torch.randn(8, 64)}, metadata={"note": "x\x1by"})
        for text in (qmill("plan", source)[0], qmill("inspect", source)[0]):
            self.assertNotIn("\x1b", text)
        self.assertIn(r"a\x1b[2J\nb.weight", qmill("plan", source)[0])

    def test_nothing_to_quantize(self):
        source = self.model({"a.bias": torch.zeros(4)})
        self.refused("-i", source, "-o", self.folder / "out.safetensors", says=("0 layers selected",))
        source = self.model({"a.weight": weight(8, 256)})
        self.refused("-i", source, "-o", self.folder / "out.safetensors", "--exclude-layers", ".", says=("0 layers selected", "exclude"))

    def test_wrong_words(self):
        source = self.model({"a.weight": weight(8, 256)})
        cases = {
            ("--optimiser", "rtn"): "did you mean '--optimizer'?",
            ("--optimizer", "rtm"): "did you mean 'rtn'?",
            ("--format", "imt8"): "did you mean 'int8'?",
            ("--filter", "t5xl"): "did you mean 't5xxl'?",
            ("--scaling-mode", "rows"): "allowed: row, tensor, block, axis",
            ("--block-size", "0"): "an integer from 1",
            ("--block-size", "64", "--scaling-mode", "row"): "a block size of 64 needs block scaling",
            ("--format", "int8_axiswise", "--scaling-mode", "row"): "format 'int8_axiswise' has axis scaling",
            ("--format", "int8_tensorwise", "--scaling-mode", "block"): "has row or tensor scaling",
            ("--fp16", "--block-size", "64"): "has no scales",
            ("--fp16", "--convrot", "64"): "has none",
            ("--convrot", "512"): "a power of 4",
            ("--convrot", "256", "--scaling-mode", "tensor"): "needs row scaling",
            ("--threads", "many"): "an integer from 0",
            ("--quality-threshold", "nan"): "a number",
            ("--keep-dtype", "f8"): "allowed: f32, bf16, f16",
            ("--custom-layers", "a"): "--custom-type",
            ("--custom-type", "int8"): "--custom-layers",
            ("--fallback", "int7"): "no format or quantizer 'int7'",
            ("--exclude-layers", "("): "not a regular expression",
            ("--fp16", "--int8"): "choose one",
            ("--simple", "--optimizer", "fp16"): "choose one",
            ("--input-scale",): "legacy names",
            ("--fp16-overflow", "ignore"): "allowed: error, clamp",
            ("--output", "a", "--output", "b"): None,
            ("--over",): None,
            ("--threads",): None,
            ("stray", "words", "here"): None,
        }
        for words, expected in cases.items():
            with self.subTest(" ".join(words)):
                given = ("-i", source, *words)
                self.refused(*given, says=(expected,) if expected else (), status=2)
        self.refused("converd", says=("did you mean 'convert'?",), status=2)

    def test_a_layer_config_that_is_wrong(self):
        source = self.model({"a.weight": weight(8, 256)})
        config = self.folder / "layers.json"
        cases = {
            '{"a": {"formt": "int8"}}': "did you mean 'format'?",
            '{"a": {"format": "int9"}}': "no format 'int9'",
            '{"a": {"block_size": "big"}}': "an integer of at least 1",
            '{"a": {"options": {"overflow": "clamp"}, "optimizer": "rtn"}}': "no rtn option 'overflow'",
            '{"(": {"skip": true}}': "not a regular expression",
            '{"a": {"block_size": 64, "block-size": 32}}': "given twice",
            '{"a": {"optimizer": "gptq", "options": {"block_size": 64, "block-size": 32}}}': "given twice",
            '{"a": {"skip": true, "format": "int9"}}': "no format 'int9'",
            '{"a": ': "not valid JSON",
            "[]": "an object",
            '{"a": {"skip": true}, "a": {"skip": false}}': "twice",
        }
        for text, expected in cases.items():
            with self.subTest(text):
                config.write_text(text)
                self.refused("-i", source, "-o", self.folder / "out.safetensors", "--layer-config", config, says=("layers.json", expected))

    def test_a_hostile_pattern_ends_in_an_error(self):
        source = self.model({"a" * 60 + ".weight": weight(8, 256)})
        self.refused("-i", source, "-o", self.folder / "out.safetensors", "--exclude-layers", "^(a+)+$", says=("(a+)+", "nested repetitions"), status=2)

    def test_an_interrupted_run(self):
        layers = {f"blocks.{i}.weight": weight(2048, 4096) for i in range(24)}
        source = self.model(layers)
        output = self.folder / "out.safetensors"
        process = subprocess.Popen([QMILL, "-i", source, "-o", output, "--threads", "1", "--in-flight", "32"], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        while process.poll() is None and not list(self.folder.glob(".out*")):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        process.communicate()
        # A machine that is fast enough finishes before the signal arrives.
        self.assertIn(process.returncode, (130, 0))
        self.assertEqual(self.names(), ["model.safetensors"] + (["out.safetensors"] if process.returncode == 0 else []))
