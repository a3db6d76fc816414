"""Models in several files: whole, or an error that names what is missing."""

import json

import torch
from safetensors.torch import save_file

from support import TempFolder, qmill, qmill_json, read


def weight(seed):
    return torch.randn(8, 256, generator=torch.Generator().manual_seed(seed)).bfloat16()


class Shards(TempFolder):
    def setUp(self):
        super().setUp()
        self.dir = self.folder / "dir"
        self.dir.mkdir()
        self.out = self.folder / "out.safetensors"

    def save(self, name, *numbers):
        tensors = {f"blocks.{number}.weight": weight(number) for number in numbers}
        (torch.save if name.endswith(".bin") else save_file)(tensors, self.dir / name)
        return self.dir / name

    def parts(self, *numbers, count=3, stem="model", ending="safetensors"):
        return [self.save(f"{stem}-{number:05}-of-{count:05}.{ending}", number) for number in numbers]

    def index(self, where, name="model.safetensors.index.json"):
        """where: the files by the number of their tensor."""
        text = {"metadata": {}, "weight_map": {f"blocks.{number}.weight": file for number, file in where.items()}}
        (self.dir / name).write_text(json.dumps(text))
        return self.dir / name

    def layers(self, source):
        report = qmill_json("-i", source, "-o", self.out, "--overwrite")
        self.assertEqual(sorted(name for name in read(self.out)[0] if name.endswith(".weight")), [layer["name"] + ".weight" for layer in sorted(report["layers"], key=lambda layer: layer["name"])])
        return [layer["name"] for layer in report["layers"]]

    def test_a_part_by_name_is_the_whole_model_and_the_summary_says_so(self):
        parts = self.parts(1, 2, 3)
        for source in [*parts, self.dir]:
            self.assertEqual(self.layers(source), ["blocks.1", "blocks.2", "blocks.3"])
        self.assertIn("3 files, model-00001-of-00003.safetensors to model-00003-of-00003.safetensors", qmill("plan", parts[1])[0])
        self.assertIn("3 files", qmill("-i", parts[1])[0])
        self.assertTrue((self.dir / "model_auto_int8.safetensors").exists())
        self.assertEqual(qmill_json("plan", parts[1])["source_files"], [str(part) for part in parts])

    def test_parts_that_are_missing_are_named(self):
        first, third = self.parts(1, 3)
        for source in (first, third, self.dir):
            for words in (("-i", source), ("plan", source), ("inspect", source), ("verify", source), ("dequantize", source, self.out)):
                self.refused(*words, says=("one of 3 parts", "1 is missing", "model-00002-of-00003.safetensors"))

    def test_an_index_that_names_files_that_are_not_there(self):
        first, = self.parts(1, count=2)
        index = self.index({1: first.name, 2: "model-00002-of-00002.safetensors"})
        for source in (self.dir, index, first):
            self.refused("-i", source, says=("model.safetensors.index.json", "1 of the 2 files", "is missing: 'model-00002-of-00002.safetensors'"))

    def test_an_index_that_does_not_agree_with_its_files(self):
        parts = self.parts(1, 2, count=2)
        self.index({1: parts[0].name, 2: parts[1].name, 3: parts[1].name})
        self.refused("-i", self.dir, says=("'blocks.3.weight' is not in", parts[1].name))
        self.index({1: parts[0].name})
        self.assertEqual(self.layers(self.dir), ["blocks.1"])  # the index decides
        self.save(parts[1].name, 2, 7)
        self.index({1: parts[0].name, 2: parts[1].name})
        self.refused("-i", self.dir, says=("'blocks.7.weight' is in", parts[1].name, "index does not say"))

    def test_files_beside_an_indexed_model_are_left_out_and_said(self):
        parts = self.parts(1, 2, count=2)
        self.index({1: parts[0].name, 2: parts[1].name})
        self.save("consolidated.safetensors", 1, 2)
        self.assertEqual(self.layers(self.dir), ["blocks.1", "blocks.2"])
        self.assertTrue(any("'consolidated.safetensors'" in warning for warning in qmill_json("plan", self.dir)["warnings"]))
        self.assertEqual(qmill_json("plan", parts[0])["warnings"], [])

    def test_two_models_in_a_folder_are_named(self):
        self.save("high_noise.safetensors", 1)
        self.save("low_noise.safetensors", 2)
        self.refused("-i", self.dir, says=("2 models", "'high_noise.safetensors'", "'low_noise.safetensors'", "name one of them"))
        self.assertEqual(self.layers(self.dir / "low_noise.safetensors"), ["blocks.2"])

    def test_a_variant_beside_the_model_is_another_model(self):
        self.save("diffusion_pytorch_model.safetensors", 1)
        self.save("diffusion_pytorch_model.fp16.safetensors", 1)
        self.refused("-i", self.dir, says=("2 models", "diffusion_pytorch_model.fp16.safetensors"))
        self.parts(1, 2, count=2, stem="m")
        self.parts(1, 2, count=2, stem="m.fp16")
        self.refused("-i", self.dir, says=("4 models", "'m-*-of-00002.safetensors'", "'m.fp16-*-of-00002.safetensors'"))

    def test_parts_of_torch_save(self):
        first, second = self.parts(1, 2, count=2, stem="pytorch_model", ending="bin")
        index = self.index({1: first.name, 2: second.name}, "pytorch_model.bin.index.json")
        for source in (index, first, second):
            self.assertEqual(self.layers(source), ["blocks.1", "blocks.2"])
        index.unlink()
        self.assertEqual(self.layers(second), ["blocks.1", "blocks.2"])
        first.unlink()
        self.refused("-i", second, says=("pytorch_model-00001-of-00002.bin", "is missing"))
        self.index({1: first.name, 2: second.name}, "pytorch_model.bin.index.json")
        self.refused("-i", second, says=("1 of the 2 files", "'pytorch_model-00001-of-00002.bin'"))

    def test_a_part_that_is_a_git_lfs_pointer_is_named(self):
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
        for ending in ("safetensors", "bin"):
            first, second = self.parts(1, 2, count=2, ending=ending)
            second.write_text(pointer)
            for source in (first, second):
                self.refused("-i", source, says=(second.name, "it is a Git LFS pointer", "download the real file"))
            index = self.index({1: first.name, 2: second.name}, f"model.{ending}.index.json")
            for source in (first, index):
                self.refused("-i", source, says=(second.name, "it is a Git LFS pointer"))
            if ending == "safetensors":
                self.refused("-i", self.dir, says=(second.name, "it is a Git LFS pointer"))
            index.write_text(pointer)
            self.refused("-i", first, says=(index.name, "it is a Git LFS pointer"))

    def test_a_name_that_counts_without_five_digits_is_a_whole_model(self):
        step = self.save("step-3-of-10.safetensors", 1)
        self.assertEqual(self.layers(step), ["blocks.1"])
        self.assertEqual(self.layers(self.dir), ["blocks.1"])

    def test_batch_takes_each_model_once_and_skips_none_that_is_broken(self):
        self.parts(1, 2, 3)
        self.parts(1, 3, stem="gap")
        self.index({1: "gone-00001-of-00002.safetensors", 2: "gone-00002-of-00002.safetensors"}, "gone.safetensors.index.json")
        self.save("named-a.safetensors", 1)
        self.save("named-b.safetensors", 2)
        self.index({1: "named-a.safetensors", 2: "named-b.safetensors"}, "named.safetensors.index.json")
        (self.dir / "broken.safetensors.index.json").write_text("{")
        report = json.loads(qmill("batch", "--directory", self.dir, "--json", status=1)[0])
        found = {model["input"].rsplit("/", 1)[1]: (model["status"], model["error"] or "") for model in report["models"]}
        self.assertEqual({name: status for name, (status, _) in found.items()}, {
            "model-00001-of-00003.safetensors": "done", "gap-00001-of-00003.safetensors": "failed", "gone.safetensors.index.json": "failed",
            "named.safetensors.index.json": "done", "broken.safetensors.index.json": "failed"})
        self.assertIn("gap-00002-of-00003.safetensors", found["gap-00001-of-00003.safetensors"][1])
        self.assertIn("gone-00001-of-00002.safetensors", found["gone.safetensors.index.json"][1])


class Written(TempFolder):
    """Files as transformers and diffusers read them: by the index."""

    def setUp(self):
        super().setUp()
        self.model, self.whole, self.out = (self.folder / name for name in ("m.safetensors", "whole.safetensors", "out.safetensors"))
        save_file({f"blocks.{number}.weight": torch.randn(512, 1024).bfloat16() for number in range(6)}, self.model)

    def test_the_index_leads_to_the_tensors_of_one_file(self):
        report = qmill_json("-i", self.model, "-o", self.out, "--max-shard-size", "1.2MB")
        names = [f"out-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
        self.assertEqual(report["output_files"], [str(self.folder / name) for name in [*names, "out.safetensors.index.json"]])
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["m.safetensors", *names, "out.safetensors.index.json"])
        index = json.loads((self.folder / "out.safetensors.index.json").read_text())
        found = {name: read(self.folder / file)[0][name] for name, file in index["weight_map"].items()}
        qmill("-i", self.model, "-o", self.whole)
        expected, _ = read(self.whole)
        self.assertEqual(sorted(found), sorted(expected))
        for name, tensor in expected.items():
            self.assertTrue(torch.equal(tensor, found[name]), name)
        self.assertEqual(index["metadata"]["total_size"], sum(tensor.nbytes for tensor in expected.values()))
        self.assertEqual(report["output_bytes"], sum((self.folder / name).stat().st_size for name in names))
        self.assertTrue(all((self.folder / name).stat().st_size <= 1_200_000 for name in names))

    def test_plan_says_what_will_be_written(self):
        plan = qmill_json("plan", self.model, "-o", self.out, "--max-shard-size", "1.2MB")
        self.assertEqual(len(plan["output_files"]), 4)
        self.assertEqual(plan["comfyui"]["loads"], False)
        self.assertEqual(plan["comfyui"]["because"], "a model in several files")
        text, _ = qmill("plan", self.model, "-o", self.out, "--max-shard-size", "1.2MB")
        self.assertIn("files      3 files, out-00001-of-00003.safetensors to out-00003-of-00003.safetensors, and out.safetensors.index.json", text)
        self.assertIn("mainline ComfyUI does not load a model in several files", text)

    def test_qmill_reads_them_again(self):
        qmill("-i", self.model, "-o", self.out, "--max-shard-size=1200000")
        qmill("-i", self.model, "-o", self.whole)
        decoded, expected = self.folder / "decoded.safetensors", self.folder / "expected.safetensors"
        qmill("dequantize", self.folder / "out.safetensors.index.json", decoded)
        qmill("dequantize", self.whole, expected)
        self.assertEqual(read(decoded)[0].keys(), read(expected)[0].keys())
        for name, tensor in read(expected)[0].items():
            self.assertTrue(torch.equal(tensor, read(decoded)[0][name]), name)

    def test_a_model_below_the_size_is_one_file(self):
        qmill("-i", self.model, "-o", self.out, "--max-shard-size", "5GB")
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["m.safetensors", "out.safetensors"])

    def test_a_layer_above_the_size_is_a_file_of_its_own_with_a_warning(self):
        save_file({"a.weight": torch.randn(2048, 1024).bfloat16(), "b.weight": torch.randn(64, 1024).bfloat16()}, self.model)
        report = qmill_json("-i", self.model, "-o", self.out, "--max-shard-size", "1MB")
        self.assertEqual(len(report["output_files"]), 3)
        self.assertTrue(any("is larger than --max-shard-size" in warning for warning in report["warnings"]), report["warnings"])

    def test_sizes_and_names_that_make_no_sense(self):
        for size in ("", "5", "0GB", "-5GB", "5XB", "GB", "nan", "inf", "1e400GB", "5 G B x", "999KB"):
            self.refused("-i", self.model, "-o", self.out, f"--max-shard-size={size}", status=2, says=("--max-shard-size",))
        for name in ("out", "out.dev", "out-00001-of-00002.safetensors"):
            self.refused("-i", self.model, "-o", self.folder / name, "--max-shard-size=1MB", status=2, says=(name,))

    def test_units(self):
        for size, files in (("1MB", 6), ("1.1 mib", 3), ("1200KB", 3), ("1200000B", 3), ("1GiB", 1), ("0.001TB", 1)):
            plan = qmill_json("plan", self.model, "-o", self.out, "--max-shard-size", size)
            self.assertEqual(len(plan["output_files"]) - (files > 1), files, size)
