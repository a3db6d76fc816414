"""Every command as a person types it."""

import json
import re
import shutil

import torch

from support import ABACUS, BUILD, TempFolder, qmill, qmill_json, qmill_process, read

OUT_OF_TREE = BUILD / "tests" / "out_of_tree"


def weight(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).bfloat16()


class Help(TempFolder):
    def test_the_short_page_fits_a_screen(self):
        text, _ = qmill("--help")
        self.assertLess(len(text.splitlines()), 40)
        for command in ("convert", "plan", "inspect", "compare", "plugins", "filters"):
            self.assertIn(f"qmill {command}", text)
        text, _ = qmill("convert", "--help")
        self.assertLess(len(text.splitlines()), 60)
        self.assertIn("[int8]", text)

    def test_the_whole_page_has_every_flag_with_its_default(self):
        text, _ = qmill("--help", "all")
        for flag in ("--scaling-mode", "--convrot", "--t5xxl", "--fp16-overflow", "--quality-threshold", "--layer-config", "--manual-seed"):
            self.assertIn(flag, text)
        for default in ("[row]", "[auto]", "[30]", "[error]", "[on]"):
            self.assertIn(default, text)

    def test_every_command_has_a_page(self):
        for command in ("convert", "plan", "inspect", "compare", "plugins", "filters"):
            text, _ = qmill(command, "--help")
            self.assertIn("Examples:", text)

    def test_the_version_names_what_it_was_built_with(self):
        text, _ = qmill("--version")
        for part in ("qmill", "SDK 2.1", "LibTorch"):
            self.assertIn(part, text)

    def test_nothing_at_all_is_a_usage_error_that_shows_the_page(self):
        text, _ = qmill(status=2)
        self.assertIn("qmill convert", text)


class Program(TempFolder):
    """Most tests call the command in their own process: a process of its own must say and write the same."""

    RUNS = (
        ("convert", "model.safetensors", "small.safetensors"),
        ("plan", "model.safetensors", "--json"),
        ("batch", "model.safetensors", "--output-dir", "."),
        ("verify", "small.safetensors"),
        ("inspect", "small.safetensors", "--json"),
        ("compare", "small.safetensors", "model.safetensors"),
        ("dequantize", "small.safetensors"),
        ("edit", "small.safetensors", "--add-keys", "'full_precision_matrix_mult': true"),
        ("calibrate", "rows.safetensors", "-o", "statistics.safetensors"),
        ("plugins", "info", "fp16"),
        ("filters", "info", "t5xxl"),
        ("completion", "bash"),
        ("man",),
    )
    MEASURED = ("convert", "batch", "dequantize", "calibrate", "edit")  # say how long it took, or where

    def test_every_command(self):
        overview = qmill("--help")[0]
        self.assertEqual({run[0] for run in self.RUNS}, set(re.findall(r"^  qmill (\w+)", overview, re.MULTILINE)))
        folders = [self.folder / "here", self.folder / "program"]
        for folder in folders:
            folder.mkdir()
            self.model({"a.weight": weight(16, 256), "a.bias": torch.ones(16)}, f"{folder.name}/model.safetensors")
            self.model({"a.input": weight(20, 256).float()}, f"{folder.name}/rows.safetensors")
        for run in self.RUNS:
            with self.subTest(" ".join(run)):
                here, program = qmill(*run, cwd=folders[0]), qmill_process(*run, cwd=folders[1])
                self.assertEqual([bool(text) for text in here], [bool(text) for text in program])
                if run[0] not in self.MEASURED:
                    self.assertEqual(here, program)
        files = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders]
        self.assertEqual(sorted(files[0]), sorted(files[1]))
        self.assertGreater(len(files[0]), 6)
        for name, data in files[0].items():
            self.assertTrue(data == files[1][name], name)

    def test_errors_and_statuses(self):
        for words, status in ((("converd",), 2), (("inspect", self.folder / "none"), 1), ((), 2), (("--version",), 0)):
            self.assertEqual(qmill(*words, status=status), qmill_process(*words, status=status))


class Convert(TempFolder):
    def test_without_an_output_the_name_says_what_was_done(self):
        source = self.model({"a.weight": weight(16, 256)})
        qmill("-i", source)
        self.assertEqual(self.names(), ["model.safetensors", "model_auto_int8.safetensors"])

    def test_names_without_a_folder_are_in_the_current_one(self):
        self.model({"a.weight": weight(16, 256)})
        qmill("-i", "model.safetensors", "-o", "small.safetensors", cwd=self.folder)
        qmill("-i", "model.safetensors", cwd=self.folder)
        self.assertEqual(self.names(), ["model.safetensors", "model_auto_int8.safetensors", "small.safetensors"])

    def test_an_output_through_a_link_replaces_what_it_points_to(self):
        source = self.model({"a.weight": weight(16, 256)})
        (self.folder / "real.safetensors").write_text("old")
        (self.folder / "link.safetensors").symlink_to("real.safetensors")
        qmill("-i", source, "-o", self.folder / "link.safetensors", "--overwrite")
        self.assertTrue((self.folder / "link.safetensors").is_symlink())
        self.assertIn("a.weight", read(self.folder / "real.safetensors")[0])

    def test_operands_flags_and_underscores_mean_the_same(self):
        source = self.model({"a.weight": weight(16, 256)})
        qmill("-i", source, "-o", self.folder / "a.safetensors", "--scaling-mode", "tensor")
        qmill("convert", source, self.folder / "b.safetensors", "--scaling_mode=tensor")
        qmill("--input", source, "--output", self.folder / "c.safetensors", "--scaling_mode", "tensor")
        contents = [(self.folder / name).read_bytes() for name in ("a.safetensors", "b.safetensors", "c.safetensors")]
        self.assertEqual(len(set(contents)), 1)

    def test_the_summary_fits_a_screen_and_says_what_auto_chose(self):
        text, _ = qmill("-i", ABACUS, "-o", self.folder / "out.safetensors")
        self.assertLess(len(text.splitlines()), 24)
        for part in ("quantized", "auto chose rtn", "size", "peak memory", "SQNR", "ComfyUI 0.30.0"):
            self.assertIn(part, text)

    def test_block_and_axis_scaling_say_once_that_comfyui_does_not_load_them(self):
        for mode, flags in {"block": ["--block-size", "64"], "axis": ["--scaling-mode", "axis"]}.items():
            text, _ = qmill("-i", ABACUS, "-o", self.folder / f"{mode}.safetensors", *flags)
            self.assertEqual(text.count("mainline ComfyUI does not load"), 1)

    def test_a_drawn_seed_is_printed_and_stored(self):
        output = self.folder / "out.safetensors"
        text, _ = qmill("-i", ABACUS, "-o", output, "--manual-seed", "-1")
        seed = read(output)[1]["qmill.seed"]
        self.assertIn(f"{seed} (drawn", text)

    def test_the_metadata_says_how_the_file_was_made(self):
        output = self.folder / "out.safetensors"
        qmill("-i", ABACUS, "-o", output, "--optimizer", "rtn", "--scaling-mode", "tensor", "--threads", "2")
        metadata = read(output)[1]
        self.assertEqual(json.loads(metadata["qmill.options"]), {"optimizer": "rtn", "scaling-mode": "tensor"})
        self.assertEqual(metadata["qmill.source"], "abacus.safetensors")
        self.assertEqual(metadata["qmill.version"], "0.1.0")

    def test_the_report_file_holds_the_result(self):
        qmill("-i", ABACUS, "-o", self.folder / "out.safetensors", "--report", self.folder / "report.json")
        report = json.loads((self.folder / "report.json").read_text())
        self.assertEqual(len(report["layers"]), 27)
        self.assertEqual(report["output_bytes"], (self.folder / "out.safetensors").stat().st_size)

    def test_a_report_is_no_output_and_replaces_nothing(self):
        output = self.folder / "out.safetensors"
        _, error = qmill("-i", ABACUS, "-o", output, "--report", output, status=2)
        self.assertIn("--report is the same file as an output", error)
        self.assertFalse(output.exists())
        report = self.folder / "report.json"
        report.write_text("kept")
        _, error = qmill("-i", ABACUS, "-o", output, "--report", report, status=2)
        self.assertIn(f"'{report}': the file exists already", error)
        self.assertEqual((output.exists(), report.read_text()), (False, "kept"))

    def test_a_failed_plan_prints_no_json(self):
        words = ("plan", ABACUS, "--exclude-layers", ".")
        self.assertEqual(qmill(*words, "--json", status=1)[0], "")
        self.assertIn("exclude", qmill(*words, status=1)[0])

    def test_the_quality_table_has_a_row_per_layer_and_the_known_layout(self):
        text, _ = qmill("-i", ABACUS, "-o", self.folder / "out.safetensors", "--report-quality", "--verbose", "MINIMAL")
        lines = text.splitlines()
        self.assertEqual(lines[0], "Quantization Quality Report:")
        self.assertEqual(lines[2], "-" * 88)
        self.assertEqual(len(lines), 3 + 27 + 1 + 3 + 1)
        self.assertIn("  Layers below 30.0 dB: 0 / 27", lines)

    def test_quality_below_the_bound_publishes_nothing(self):
        _, error = qmill("-i", ABACUS, "-o", self.folder / "out.safetensors", "--fail-below", "60", status=3)
        self.assertIn("dB", error)
        self.assertEqual(self.names(), [])

    def test_low_quality_is_a_warning(self):
        text, _ = qmill("-i", ABACUS, "-o", self.folder / "out.safetensors", "--quality-threshold", "43")
        self.assertIn("below 43.00 dB", text)

    def test_a_drawn_plan_names_optimizer_rtn_and_fp16(self):
        plan = qmill_json("-i", ABACUS, "--dry-run", "--optimizer", "rtn")
        self.assertEqual({layer["quantizer"] for layer in plan["layers"]}, {"rtn"})
        plan = qmill_json("-i", ABACUS, "--dry-run", "--optimizer", "fp16")
        self.assertEqual({(layer["quantizer"], layer["format"]) for layer in plan["layers"]}, {("fp16", "fp16")})
        plan = qmill_json("-i", ABACUS, "--dry-run", "--simple")
        self.assertEqual({layer["quantizer"] for layer in plan["layers"]}, {"rtn"})

    def test_t5xxl_keeps_and_removes_what_it_should(self):
        source = self.model(
            {
                "shared.weight": weight(8, 256),
                "encoder.block.0.layer.0.SelfAttention.q.weight": weight(16, 256),
                "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": weight(8, 4),
                "encoder.final_layer_norm.weight": weight(1, 256).flatten(),
                "decoder.block.0.layer.0.SelfAttention.q.weight": weight(16, 256),
                "decoder.final_layer_norm.weight": weight(1, 256).flatten(),
                "lm_head.weight": weight(8, 256),
            }
        )
        output = self.folder / "out.safetensors"
        plan = {layer["name"]: layer for layer in qmill_json("plan", source, "--t5xxl")["layers"]}
        self.assertEqual(plan["shared"]["rule"], "filter")
        self.assertEqual(plan["lm_head"]["action"], "remove")
        self.assertEqual(plan["decoder.final_layer_norm"]["action"], "remove")
        self.assertEqual(plan["encoder.block.0.layer.0.SelfAttention.q"]["rule"], "primary")
        qmill("-i", source, "-o", output, "--t5xxl")
        tensors, _ = read(output)
        self.assertFalse([name for name in tensors if "decoder" in name or "lm_head" in name])
        self.assertEqual(tensors["shared.weight"].dtype, torch.bfloat16)
        self.assertEqual(tensors["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"].dtype, torch.bfloat16)
        self.assertEqual(tensors["encoder.block.0.layer.0.SelfAttention.q.weight"].dtype, torch.int8)

    def test_a_layer_config_chooses_per_layer(self):
        config = self.folder / "layers.json"
        config.write_text(
            json.dumps(
                {
                    "layer_patterns": {
                        ".*attention.*": {"format": "int8", "block_size": 64, "skip": False},
                        "mlp\\.up$": {"optimizer": "fp16"},
                        "mlp\\.down$": {"format": "int8_tensorwise", "scaling_mode": "tensor", "quantizer": "rtn"},
                        "^head$": {"skip": True},
                    }
                }
            )
        )
        plan = {layer["name"]: layer for layer in qmill_json("plan", ABACUS, "--layer-config", config)["layers"]}
        self.assertEqual(plan["blocks.0.attention.q"]["format"], "int8_blockwise")
        self.assertEqual(plan["blocks.0.attention.q"]["outputs"][1]["shape"], [3, 4])
        self.assertEqual(plan["blocks.1.mlp.up"]["quantizer"], "fp16")
        self.assertEqual(plan["blocks.1.mlp.down"]["layout"], "int8 tensor")
        self.assertEqual(plan["head"]["action"], "copy")
        self.assertEqual(plan["token_embedding"]["rule"], "primary")
        output = self.folder / "out.safetensors"
        qmill("-i", ABACUS, "-o", output, "--layer-config", config)
        tensors, _ = read(output)
        self.assertEqual(tensors["blocks.2.mlp.up.weight"].dtype, torch.float16)
        self.assertEqual(tuple(tensors["blocks.2.mlp.down.weight_scale"].shape), ())

    def test_the_template_loads_back(self):
        text, _ = qmill("-i", ABACUS, "--dry-run", "create-template")
        config = self.folder / "template.json"
        config.write_text(text)
        plan = qmill_json("plan", ABACUS, "--layer-config", config, "--fullmatch")
        self.assertEqual({layer["rule"] for layer in plan["layers"]}, {"layer_config"})
        self.assertEqual(plan["warnings"], [])

    def test_shards_become_one_file(self):
        one = {"a.weight": weight(16, 256, 1), "a.bias": torch.zeros(16)}
        two = {"b.weight": weight(32, 64, 2)}
        folder = self.folder / "shards"
        folder.mkdir()
        self.model(one, "shards/model-00001-of-00002.safetensors")
        self.model(two, "shards/model-00002-of-00002.safetensors")
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {**dict.fromkeys(one, "model-00001-of-00002.safetensors"), **dict.fromkeys(two, "model-00002-of-00002.safetensors")}}))
        qmill("-i", index, "-o", self.folder / "from_index.safetensors")
        qmill("-i", folder, "-o", self.folder / "from_folder.safetensors")
        qmill("-i", self.model({**one, **two}), "-o", self.folder / "from_file.safetensors")
        contents = [read(self.folder / f"from_{what}.safetensors")[0] for what in ("index", "folder", "file")]
        for other in contents[1:]:
            self.assertEqual(set(other), set(contents[0]))
            for name, tensor in contents[0].items():
                self.assertTrue(torch.equal(other[name], tensor), name)


class Inspect(TempFolder):
    def test_it_shows_layers_tensors_and_metadata(self):
        output = self.folder / "out.safetensors"
        qmill("-i", ABACUS, "-o", output)
        data = qmill_json("inspect", output)
        self.assertEqual(sum(layer["quantized"] for layer in data["layers"]), 27)
        self.assertEqual(len(data["tensors"]), 123)
        self.assertEqual(data["metadata"]["qmill.quantizer"], "rtn")
        text, _ = qmill("inspect", output)
        self.assertIn("int8 row, rotated 256", text)


class Plugins(TempFolder):
    def test_the_list_says_where_it_looked_and_what_it_found(self):
        text, _ = qmill("plugins", "list")
        self.assertIn("Searched, in this order:", text)
        names = {plugin["name"]: plugin for plugin in qmill_json("plugins", "list")}
        for name in ("rtn", "fp16", "safetensors", "filters_text"):
            self.assertEqual(names[name]["status"], "compatible")
            self.assertEqual(names[name]["reason"], "")
        self.assertEqual(names["filters_text"]["kind"], "filter")

    def test_info_shows_the_options(self):
        text, _ = qmill("plugins", "info", "fp16")
        self.assertIn("overflow", text)
        self.assertIn("one of error, clamp", text)

    def test_a_strangers_plugin_is_found_used_and_brings_its_flag(self):
        # In processes of their own: a library that is loaded stays loaded, and its file must not change under it.
        library = next(OUT_OF_TREE.rglob("libqmill_acme*.so"), None)
        self.assertIsNotNone(library, f"no plugin below {OUT_OF_TREE}: its own test builds it first")
        plugins = self.folder / "plugins"
        plugins.mkdir()
        copied = plugins / library.name
        shutil.copy(library, copied)
        listed = {plugin["name"]: plugin for plugin in qmill_json("plugins", "list", "--plugin-dir", plugins, run=qmill_process)}
        entry = next(plugin for plugin in listed.values() if plugin["file"] == str(copied))
        self.assertEqual(entry["status"], "compatible")
        quantizer = next(offer["name"] for offer in entry["offers"] if offer["kind"] == "quantizer")
        flags = qmill_process("--plugin-dir", plugins, "--help", "all")[0]
        self.assertIn(f"Options of the quantizer {quantizer}", flags)
        config = self.folder / "layers.json"
        config.write_text(json.dumps({"attention\\.q$": {"quantizer": quantizer}}))
        output = self.folder / "out.safetensors"
        report = qmill_json("-i", ABACUS, "-o", output, "--plugin-dir", plugins, "--layer-config", config, run=qmill_process)
        used = {layer["name"]: layer["quantizer"] for layer in report["layers"]}
        self.assertEqual(used["blocks.0.attention.q"], quantizer)
        self.assertEqual(used["blocks.0.attention.k"], "rtn")

        data = copied.read_bytes()
        copied.write_bytes(data.replace(b"sdk=2.1;torch=", b"sdk=7.0;torch="))
        self.assertNotEqual(data, copied.read_bytes())
        entry = next(plugin for plugin in qmill_json("plugins", "list", "--plugin-dir", plugins, run=qmill_process) if plugin["file"] == str(copied))
        self.assertEqual(entry["status"], "refused")
        self.assertIn("built for SDK 7.0, this program runs 2.1", entry["reason"])
        _, error = qmill_process("-i", ABACUS, "-o", self.folder / "b.safetensors", "--plugin-dir", plugins, "--optimizer", quantizer, status=1)
        self.assertIn("built for SDK 7.0", error)


class Filters(TempFolder):
    def test_they_are_listed_and_explained(self):
        text, _ = qmill("filters", "list")
        for name in ("t5xxl", "mistral", "visual", "generic_text"):
            self.assertIn(name, text)
        text, _ = qmill("filters", "info", "t5xxl")
        self.assertIn("decoder.block", text)
        self.assertEqual(qmill_json("filters", "info", "t5xxl")["name"], "t5xxl")
