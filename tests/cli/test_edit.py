"""edit: what markers say changes, everything else is the same bytes."""

import json
import os

import torch

from support import ABACUS, TempFolder, qmill, qmill_json, read


def marker(tensors, layer):
    return json.loads(bytes(tensors[f"{layer}.comfy_quant"].tolist()))


def header(metadata):
    return json.loads(metadata["_quantization_metadata"])


def marked(text):
    return torch.tensor(list(text.encode() if isinstance(text, str) else json.dumps(text).encode()), dtype=torch.uint8)


def layer(name, marker_of_it):
    """Tensors of a plain int8 layer [4, 8] with this marker."""
    codes = torch.arange(32, dtype=torch.int8).reshape(4, 8)
    return {f"{name}.weight": codes, f"{name}.weight_scale": torch.full((4, 1), 0.5), f"{name}.comfy_quant": marked(marker_of_it)}


PLAIN = {"format": "int8_tensorwise"}


class Edit(TempFolder):
    def edit(self, source, *flags, output="out.safetensors", status=0):
        return qmill("edit", source, "-o", self.folder / output, *flags, status=status)

    def refused(self, source, *flags, says, status=2):
        before = self.names()
        output, error = self.edit(source, *flags, status=status)
        self.assertEqual(output, "")
        self.assertEqual(len(error.strip().splitlines()), 1, error)
        self.assertIn(says, error)
        self.assertEqual(self.names(), before)

    def quantized(self, *flags):
        output = self.folder / "int8.safetensors"
        qmill("-i", ABACUS, "-o", output, *flags)
        return output

    def test_markers_and_header_change_together_and_nothing_else_does(self):
        source = self.quantized()
        before, old_metadata = read(source)
        self.edit(source, "--add-keys", "'full_precision_matrix_mult': true, 'note': 'a, b'", "--quant-filter", r"attention\.q$")
        after, metadata = read(self.folder / "out.safetensors")
        self.assertEqual(before.keys(), after.keys())
        changed = {name for name in before if before[name].shape != after[name].shape or before[name].dtype != after[name].dtype or
                   not torch.equal(before[name].flatten().view(torch.uint8), after[name].flatten().view(torch.uint8))}
        self.assertEqual(changed, {f"blocks.{i}.attention.q.comfy_quant" for i in range(4)})
        for i in range(4):
            name = f"blocks.{i}.attention.q"
            self.assertEqual(marker(after, name), {**marker(before, name), "full_precision_matrix_mult": True, "note": "a, b"})
        for name, entry in header(metadata)["layers"].items():
            self.assertEqual(entry, marker(after, name))
        self.assertEqual(len(header(metadata)["layers"]), 27)
        old_metadata.pop("_quantization_metadata"), metadata.pop("_quantization_metadata")
        self.assertEqual(old_metadata, metadata)

    def test_there_and_back_gives_the_same_bytes(self):
        source = self.quantized()
        self.edit(source, "--add-keys", '{"x": 1}', output="there.safetensors")
        self.edit(self.folder / "there.safetensors", "--remove-keys", "x", output="back.safetensors")
        self.assertNotEqual(source.read_bytes(), (self.folder / "there.safetensors").read_bytes())
        self.assertEqual(source.read_bytes(), (self.folder / "back.safetensors").read_bytes())

    def test_the_old_form_and_the_default_name(self):
        source = self.quantized("--full-precision-matrix-mult")
        for words in (("-i", source, "--edit-quant", "--remove-keys", "full_precision_matrix_mult"),
                      ("convert", "-i", source, "--edit_quant", "--remove_keys=full_precision_matrix_mult"),
                      ("edit", source, "--remove-keys", " full_precision_matrix_mult ")):
            qmill(*words)
            edited = self.folder / "int8_edited.safetensors"
            self.assertNotIn("full_precision_matrix_mult", marker(read(edited)[0], "head"))
            edited.unlink()

    def test_the_grammar(self):
        source = self.model(layer("a", PLAIN))
        cases = {
            "'k': 'v'": {"k": "v"},
            "'k': 1, 'l': -2": {"k": 1, "l": -2},
            "'k': 1e-3": {"k": 1e-3},
            "'k': 0.5, 'l': 2.0": {"k": 0.5, "l": 2.0},
            "'k': true, 'l': false, 'm': null": {"k": True, "l": False, "m": None},
            "'k': True, 'l': False, 'm': None": {"k": True, "l": False, "m": None},
            "'k': 'a, b: c', 'l': \"it's\"": {"k": "a, b: c", "l": "it's"},
            r"'k': 'it\'s \"so\"'": {"k": 'it\'s "so"'},
            "'k': 'say \"x\"'": {"k": 'say "x"'},
            "'k': {'a': [1, 2, {'b': 'c, d'}]}, 'l': []": {"k": {"a": [1, 2, {"b": "c, d"}]}, "l": []},
            "{'k': {}}": {"k": {}},
            '{"k": {"a": [1, 2.5, "x, y"]}, "l": "\\u00e9\\n"}': {"k": {"a": [1, 2.5, "x, y"]}, "l": "é\n"},
            "k: word_1, l: 7": {"k": "word_1", "l": 7},
            "'ключ': 'значение'": {"ключ": "значение"},
            "  'k'  :  1  ": {"k": 1},
            "'format': 'int8_tensorwise', 'k': 12345678901234567890": {"k": 12345678901234567890},
        }
        for text, expected in cases.items():
            with self.subTest(text):
                self.edit(source, "--overwrite", "--add-keys", text)
                self.assertEqual(marker(read(self.folder / "out.safetensors")[0], "a"), {**PLAIN, **expected})

    def test_what_is_not_the_grammar(self):
        source = self.model(layer("a", PLAIN))
        for text in ("", "   ", "{}", "'k'", "'k':", "'k': ,", "'k' 1", "'k': 1 'l': 2", "'k': 1,", ",", "'k': 'v", "'k': {", "'k': [1", "'k': [1,]", "{'k': 1", "{'k': 1} x",
                     "'k': 1.2.3", "'k': +1", "'k': --", "'k': {'a': 1, 'a': 2}", "'k': 1, 'k': 2", "'k': " + "[" * 200, "'k': '\\q'", "'k': 1;", "[1]", "'': {"):
            with self.subTest(text):
                self.refused(source, "--add-keys", text, says="the keys to add")

    def test_keys_that_would_make_it_unreadable(self):
        source = self.quantized()
        cases = {
            ("--remove-keys", "format"): "without 'format'",
            ("--add-keys", "'format': 'int8_tensorwize'"): "did you mean 'int8_tensorwise'?",
            ("--add-keys", "'format': 7"): "expected a text",
            ("--add-keys", "'format': nvfp4"): "contradict",
            ("--remove-keys", "convrot_groupsize"): "convrot_groupsize",
            ("--add-keys", "'convrot_groupsize': 512"): "512",
        }
        for flags, says in cases.items():
            with self.subTest(flags):
                self.refused(source, *flags, says=says)

    def test_values_that_verify_calls_an_error(self):
        quantized, plain = self.quantized(), self.model(layer("a", PLAIN))
        for source in (quantized, plain):
            for text, says in {'{"convrot": "yes"}': "'convrot' is \"yes\", expected true or false", "'full_precision_matrix_mult': 1": "expected true or false"}.items():
                self.refused(source, "--add-keys", text, says=says)
        self.refused(plain, "--add-keys", "'convrot': true, 'convrot_groupsize': 4, 'full_precision_matrix_mult': 'x'", says="expected true or false")
        only_header = {name: value for name, value in layer("model.diffusion_model.a", PLAIN).items() if "comfy" not in name}
        source = self.model(only_header, "header.safetensors", {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": {"a": PLAIN}})})
        self.refused(source, "--add-keys", "'convrot': 'yes'", says="layer 'model.diffusion_model.a'")
        report = json.loads(self.edit(source, "--add-keys", "'x': 1", "--quant-filter", "^model", "--json")[0])
        self.assertEqual(report["changed"], ["model.diffusion_model.a"])
        self.assertEqual(header(read(self.folder / "out.safetensors")[1])["layers"], {"a": {**PLAIN, "x": 1}})

    def test_what_was_wrong_before_does_not_stand_in_the_way(self):
        source = self.model(layer("a", {**PLAIN, "full_precision_matrix_mult": "yes"}))
        qmill("verify", source, status=1)
        self.edit(source, "--add-keys", "'note': 1")
        self.refused(source, "--overwrite", "--add-keys", "'convrot': 7", says="'convrot' is 7")
        self.refused(source, "--overwrite", "--add-keys", "'full_precision_matrix_mult': 'no'", says='"no"')
        self.edit(source, "--overwrite", "--remove-keys", "full_precision_matrix_mult")

    def test_removing_and_adding_the_format_at_once_is_no_loss(self):
        source = self.model(layer("a", {"format": "int8_tensorwise", "x": 1}))
        self.edit(source, "--remove-keys", "format,x", "--add-keys", "'format': 'int8_tensorwise'")
        self.assertEqual(marker(read(self.folder / "out.safetensors")[0], "a"), PLAIN)

    def test_another_reading_of_the_codes_is_a_warning(self):
        text, _ = self.edit(self.quantized(), "--remove-keys", "convrot,convrot_groupsize")
        self.assertEqual(text.count("warning"), 1)
        self.assertIn("their weights come out different", text)

    def test_what_changes_nothing(self):
        source = self.model(layer("a", PLAIN))
        self.refused(source, says="no change is given")
        self.refused(source, "--remove-keys", "absent", says="nothing would change", status=1)
        self.refused(source, "--add-keys", "'format': 'int8_tensorwise'", says="nothing would change", status=1)
        self.refused(source, "--remove-keys", "x", "--quant-filter", "zzz", says="no marker matches 'zzz'", status=1)
        self.refused(source, "--remove-keys", "x,,y", says="a key to remove is empty")
        self.refused(source, "--remove-keys", "", says="a key to remove is empty")
        self.refused(source, "--remove-keys", "x", "--quant-filter", "(", says="not a regular expression")
        self.refused(self.model({"a.weight": torch.ones(2, 2)}, "plain.safetensors"), "--remove-keys", "x", says="no quantization markers", status=1)

    def test_a_key_that_no_marker_has_is_a_warning(self):
        source = self.model(layer("a", {**PLAIN, "x": 1}))
        text, _ = self.edit(source, "--remove-keys", "x,y")
        self.assertIn("no marker has the key 'y'", text)

    def test_a_marker_that_cannot_be_read_is_kept_with_a_warning(self):
        source = self.model({**layer("good", PLAIN), **layer("bad", '{"format": '), **layer("list", "[1]"), **layer("twice", '{"format": "x", "format": "y"}')})
        report = json.loads(self.edit(source, "--add-keys", "'x': 1", "--json")[0])
        self.assertEqual(report["changed"], ["good"])
        self.assertEqual(report["selected"], 1)
        self.assertEqual(len(report["warnings"]), 3)
        self.assertTrue(all("is kept as it is" in warning for warning in report["warnings"]))
        before, after = read(source)[0], read(self.folder / "out.safetensors")[0]
        for name in ("bad", "list", "twice"):
            self.assertTrue(torch.equal(before[f"{name}.comfy_quant"], after[f"{name}.comfy_quant"]))

    def test_the_header_is_made_anew_when_asked_for(self):
        source = self.model({**layer("a", PLAIN), **layer("b", {**PLAIN, "x": 1})})
        self.edit(source, "--save-quant-metadata")
        self.assertEqual(header(read(self.folder / "out.safetensors")[1]), {"format_version": "1.0", "layers": {"a": PLAIN, "b": {**PLAIN, "x": 1}}})
        self.edit(source, "--add-keys", "'y': 2", output="without.safetensors")
        self.assertNotIn("_quantization_metadata", read(self.folder / "without.safetensors")[1])

    def test_a_layer_that_only_the_header_marks(self):
        tensors = {name: value for name, value in layer("a", PLAIN).items() if "comfy" not in name}
        source = self.model(tensors, metadata={"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": {"a": PLAIN}})})
        self.edit(source, "--add-keys", "'x': 1")
        after, metadata = read(self.folder / "out.safetensors")
        self.assertEqual(header(metadata)["layers"], {"a": {**PLAIN, "x": 1}})
        self.assertNotIn("a.comfy_quant", after)

    def test_a_header_that_differs_is_named_and_follows_the_marker(self):
        source = self.model({**layer("a", PLAIN), **layer("b", PLAIN)},
                            metadata={"_quantization_metadata": json.dumps({"layers": {"a": {"format": "int8_blockwise"}, "b": {"format": "int8_blockwise"}}})})
        text, _ = self.edit(source, "--add-keys", "'x': 1", "--quant-filter", "a")
        self.assertIn("the header said something else of 'a'", text)
        self.assertEqual(header(read(self.folder / "out.safetensors")[1])["layers"], {"a": {**PLAIN, "x": 1}, "b": {"format": "int8_blockwise"}})

    def test_entries_without_the_prefix_are_found(self):
        source = self.model(layer("model.diffusion_model.a", PLAIN), metadata={"_quantization_metadata": json.dumps({"layers": {"a": PLAIN}})})
        self.edit(source, "--add-keys", "'x': 1")
        self.assertEqual(header(read(self.folder / "out.safetensors")[1])["layers"], {"a": {**PLAIN, "x": 1}})

    def test_outputs_are_refused_as_elsewhere(self):
        source = self.model(layer("a", PLAIN))
        (self.folder / "out.safetensors").write_text("precious")
        self.refused(source, "--add-keys", "'x': 1", says="exists already")
        self.assertEqual((self.folder / "out.safetensors").read_text(), "precious")
        os.link(source, self.folder / "hard.safetensors")
        _, error = qmill("edit", source, "-o", self.folder / "hard.safetensors", "--overwrite", "--add-keys", "'x': 1", status=2)
        self.assertIn("same file", error)
        _, error = qmill("edit", self.folder / "none.safetensors", "--add-keys", "'x': 1", status=1)
        self.assertIn("none.safetensors", error)

    def test_the_edited_file_can_be_inspected_and_verified(self):
        source = self.quantized()
        self.edit(source, "--add-keys", "'x': {'y': [1, 2]}")
        layers = qmill_json("inspect", self.folder / "out.safetensors")["layers"]
        self.assertTrue(all(entry["marker"]["x"] == {"y": [1, 2]} for entry in layers if entry["quantized"]))
        self.assertTrue(qmill_json("verify", self.folder / "out.safetensors")["loads"])
