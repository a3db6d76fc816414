"""Every command line of README.md and docs/ is run, in the order of its page, in a folder with the files that it names.

A command line is one that begins with `qmill` inside of a fenced block without a language (or bash, sh, console); `$ ` before it is taken off. Prose after two
spaces is left out, and words in capitals stand for files or names: see PLACEHOLDERS. It must exit with 0, or with what a comment at its end says: `# exit 2`.
A file that nothing here makes and no earlier line of the page has written is a failure: add it to FIXTURES.
"""

import json
import re
import shlex
import shutil
import unittest

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import keys
from support import ABACUS, BUILD, SOURCE, TempFolder, qmill

PAGES = [SOURCE / "README.md", *sorted((SOURCE / "docs").rglob("*.md"))]

# A file name of a command line, as opposed to a flag, a command or a value.
FILE = re.compile(r"[\w./*-]+\.(?:safetensors(?:\.index\.json)?|json|gguf|pt|pth|ckpt|bin)|[\w.-]+/(?:[\w./-]*)")


def copy_model(path):
    shutil.copy(ABACUS, path)


def quantized(path):
    qmill("-i", ABACUS, "-o", path)


def calibration_rows(path):
    with safe_open(ABACUS, framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys() if name.endswith(".weight")}
    generator = torch.Generator().manual_seed(0)
    save_file({f"{name[:-7]}.input": torch.randn(64, shape[1], generator=generator) for name, shape in shapes.items() if len(shape) == 2}, path)


def statistics(path):
    calibration_rows(path.with_name("made_rows.safetensors"))
    qmill("calibrate", path.with_name("made_rows.safetensors"), "-o", path)


def lora(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"blocks.0.mlp.up.lora_A.weight": torch.ones(2, 256), "blocks.0.mlp.up.lora_B.weight": torch.full((704, 2), 1e-3)}, path)


def layer_config(path):
    path.write_text(json.dumps({"attention": {"scaling_mode": "tensor"}}))


def lora_mapping(path):
    lora(path.with_name("mapped.safetensors"))
    path.write_text(json.dumps({"a": "mapped.safetensors"}))
    folder = path.with_name("loras")
    folder.mkdir(exist_ok=True)
    shutil.copy(path.with_name("mapped.safetensors"), folder / "mapped.safetensors")


def folder_of_models(path):
    path.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        copy_model(path / f"{name}.safetensors")


def folder_of_shards(path):
    path.mkdir(parents=True, exist_ok=True)
    with safe_open(ABACUS, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    names = sorted(tensors)
    for i, part in enumerate((names[::2], names[1::2]), 1):
        save_file({name: tensors[name] for name in part}, path / f"model-0000{i}-of-00002.safetensors")


def folder_of_loras(path):
    path.mkdir(parents=True, exist_ok=True)


def scaled_fp8(path):
    scale = torch.tensor(0.01)
    save_file({"a.weight": torch.randn(16, 256).to(torch.float8_e4m3fn), "a.scale_weight": scale, "scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}, path)


def umt5(path):
    """A block under the names that the authors of Wan gave it."""
    layers = ["attn.q", "attn.k", "attn.v", "attn.o", "ffn.gate.0", "ffn.fc1", "ffn.fc2"]
    save_file({"token_embedding.weight": torch.randn(64, 256)} | {f"blocks.0.{layer}.weight": torch.randn(256, 256) for layer in layers}, path)


def zimage(path):
    """The header of the real model, and a hole for its data: commands that read headers only."""
    keys.write(path, keys.tensors("z_image"))


def acme_model(path):
    save_file({"acme_in.weight": torch.randn(8, 256), "acme_blocks.0.attn.weight": torch.randn(8, 8), "acme_blocks.0.mod.weight": torch.randn(8, 8)}, path)


def acme_library(path):
    library = next((BUILD / "tests" / "out_of_tree").rglob("libqmill_acme*.so"), None)
    if library is None:
        raise unittest.SkipTest("no stranger's plugin: its own test builds it first")
    path.mkdir(parents=True, exist_ok=True)
    shutil.copy(library, path / library.name)


def pack_of_the_page(path):
    """The filter pack that docs/filters.md shows."""
    path.mkdir(parents=True, exist_ok=True)
    text = (SOURCE / "docs" / "filters.md").read_text()
    (path / "acme_filters.json").write_text(next(block for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL) if '"filter_pack"' in block))


FIXTURES = {
    "model.safetensors": copy_model,
    "a.safetensors": copy_model,
    "b.safetensors": copy_model,
    "abacus.safetensors": copy_model,
    "model/": folder_of_shards,
    "models/": folder_of_models,
    "loras/": folder_of_loras,
    "model_int8.safetensors": quantized,
    "model_fp8_scaled.safetensors": scaled_fp8,
    "rows.safetensors": calibration_rows,
    "statistics.safetensors": statistics,
    "style.safetensors": lora,
    "layers.json": layer_config,
    "loras.json": lora_mapping,
    "umt5.safetensors": umt5,
    "zimage.safetensors": zimage,
    "acme_model.safetensors": acme_model,
    "acme_plugins/": pack_of_the_page,
    "build/lib/qmill/plugins/": acme_library,
}

# What words in capitals stand for: by page, and by the rest of the line where that decides.
PLACEHOLDERS = {
    "MODEL": "model.safetensors",
    "MODEL...": "model.safetensors",
    "FILE": "model_int8.safetensors",
    "QUANTIZED": "model_int8.safetensors",
    "SOURCE": "model.safetensors",
    "ROWS": "rows.safetensors",
    "OUTPUT": "written.safetensors",
    "STATISTICS": "written_statistics.safetensors",
}
OF_PAGE = {"filters.md": {"MODEL": "zimage.safetensors", "DIR": "acme_plugins"}}
OF_LINE = {"--acme": {"MODEL": "acme_model.safetensors"}}

# Words that name a file without an ending: folders after these flags.
FOLDERS = ("--directory", "--lora-dir", "--plugin-dir")
NO_FILES = ("--pattern", "--quant-filter", "--exclude-layers", "--custom-layers", "--add-keys", "--remove-keys")
OUTPUTS = ("-o", "--output", "--output-dir", "--report")


def command_lines(text):
    """(words, exit status) of every command line of a page."""
    lines = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language not in ("", "bash", "sh", "console"):
            continue
        for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
            line = line.strip().removeprefix("$ ")
            if not line.startswith("qmill "):
                continue
            status = re.search(r"#\s*exit (\d+)\s*$", line)
            line = re.sub(r"\s+#\s.*$", "", line)
            line = re.split(r"\s{2,}", line)[0]
            line = re.sub(r"\[(-[^\]]*|[A-Z]+)\]", r"\1", line)  # what may be left out is not
            lines.append((shlex.split(line)[1:], int(status[1]) if status else 0))
    return lines


def substituted(words, page):
    known = {**PLACEHOLDERS, **OF_PAGE.get(page.name, {})}
    for word in words:
        known.update(OF_LINE.get(word, {}))
    return [known.get(word, word.split("|")[0] if re.fullmatch(r"\w+(\|\w+)+", word) else word) for word in words]


def files_of(words):
    """(name, is an output) of what the words name."""
    found = []
    inputs = 0
    for before, word in zip(["", *words], words):
        if before in FOLDERS or before == "--output-dir":
            found.append((word.rstrip("/") + "/", before == "--output-dir"))
        elif not word.startswith("-") and before not in NO_FILES and FILE.fullmatch(word):
            if before in OUTPUTS:
                found.append((word, True))
                continue
            # The second operand of these is what they write.
            inputs += not before.startswith("--")
            is_output = words[0] in ("convert", "dequantize") and inputs == 2 and not before.startswith("-")
            found.append((word, is_output))
    return found


class Docs(TempFolder):
    def run_page(self, page):
        folder = self.folder / page.stem
        folder.mkdir()
        for words, status in command_lines(page.read_text(encoding="utf-8")):
            with self.subTest(f"{page.name}: qmill {' '.join(words)}"):
                words = substituted(words, page)
                for name, is_output in files_of(words):
                    self.prepare(folder, name, is_output)
                qmill(*words, status=status, cwd=folder, choose=list)

    def prepare(self, folder, name, is_output):
        path = folder / name
        if is_output:
            if path.is_file():
                path.unlink()
            return
        if "*" in name:
            name, path = name.split("/")[0] + "/", folder / name.split("/")[0]
        if path.exists():
            return
        self.assertIn(name, FIXTURES, "no earlier line of the page writes this file, and nothing here makes it: add it to FIXTURES")
        FIXTURES[name](path)

    def test_every_page_is_run(self):
        lines = {page.name: len(command_lines(page.read_text(encoding="utf-8"))) for page in PAGES}
        self.assertGreater(lines["README.md"], 5)
        self.assertGreater(lines["commands.md"], 25)
        for page in PAGES:
            self.run_page(page)

    def test_examples_of_help_pages_are_run(self):
        """The examples of every command's page, all in one folder."""
        folder = self.folder / "help"
        folder.mkdir()
        commands = sorted(set(re.findall(r"^  qmill (\w+)", qmill("--help")[0], re.MULTILINE)))
        for command in commands:
            for example in json.loads(qmill(command, "--help", "--json")[0])["examples"]:
                with self.subTest(example):
                    self.assertIn("qmill ", example)
                    if re.search(r"[<>&|]\(?", re.sub(r"'[^']*'", "", example)):
                        continue  # for a shell: completion and man have their own tests
                    words = shlex.split(example)[1:]
                    for name, is_output in files_of(words):
                        self.prepare(folder, name, is_output)
                    qmill(*words, cwd=folder, choose=list)

    def test_the_reader_of_pages(self):
        text = "```\n$ qmill -i a.safetensors   prose here\nqmill x FILE [-o OUTPUT] # exit 2\nls\n```\n```json\nqmill no\n```\nqmill neither\n```\nqmill a \\\n  b # a comment\n```\n"
        self.assertEqual(command_lines(text), [(["-i", "a.safetensors"], 0), (["x", "FILE", "-o", "OUTPUT"], 2), (["a", "b"], 0)])
        self.assertEqual(files_of(["convert", "in.safetensors", "out.safetensors"]), [("in.safetensors", False), ("out.safetensors", True)])
        self.assertEqual(files_of(["-i", "m.safetensors", "-o", "o.safetensors", "--layer-config", "l.json"]),
                         [("m.safetensors", False), ("o.safetensors", True), ("l.json", False)])
        with self.assertRaises(AssertionError):
            self.prepare(self.folder, "unknown.safetensors", False)


class Links(TempFolder):
    def test_links_between_pages_lead_somewhere(self):
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
                if "://" in target:
                    continue
                with self.subTest(f"{page.name}: {target}"):
                    self.assertTrue((page.parent / target).exists(), f"{page.name} links to {target}, which is not there")
