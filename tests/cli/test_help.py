"""Help pages, completion and the manual page: all from one table, and none forgets a flag."""

import json
import re
import shutil
import subprocess
import unittest

from support import TempFolder, qmill

COMMANDS = ("convert", "plan", "batch", "verify", "inspect", "compare", "edit", "calibrate", "plugins", "filters", "completion", "man")


def flags_on(page):
    """Names of the flags on a printed help page."""
    return set(re.findall(r"^ {2}(?:-\w, |    )--([\w.-]+)", page, re.MULTILINE))


def commands():
    """Those that the overview names."""
    return sorted(set(re.findall(r"^  qmill (\w+)", qmill("--help")[0], re.MULTILINE)))


def help_table(command):
    return json.loads(qmill(command, "--help", "--json")[0])


def spellings(flag):
    """Every way to write a flag of the table."""
    words = {f"--{flag['name']}"}
    if flag["letter"]:
        words.add(f"-{flag['letter']}")
    if not flag["value"] and not flag["name"].startswith("no-"):
        words.add(f"--no-{flag['name']}")
    return words


class Topics(TempFolder):
    def topics(self, command="convert"):
        text = qmill(command, "--help")[0]
        listed = text.split("--help TOPIC:\n")[1]
        return [topic.strip() for topic in listed.replace("\n", " ").split(",")]

    def test_every_flag_is_on_a_page_of_a_topic(self):
        for command in ("convert", "plan", "batch"):
            everything = flags_on(qmill(command, "--help", "all")[0])
            self.assertGreater(len(everything), 80)
            union = set()
            for topic in self.topics(command):
                page = flags_on(qmill(command, "--help", topic)[0])
                self.assertTrue(page, f"the page '{topic}' is empty")
                union |= page
            self.assertEqual(union, everything)

    def test_the_short_page_lists_the_topics(self):
        for topic in ("filters", "layers", "format", "quantizer", "calibration", "lora", "memory", "quality", "advanced", "experimental", "gptq", "quip", "fp16"):
            self.assertIn(topic, self.topics())

    def test_a_topic_has_its_flags_and_no_others(self):
        expected = {
            "filters": ({"filter", "t5xxl", "generic-text"}, {"exclude-layers", "format"}),
            "layers": ({"exclude-layers", "custom-layers", "layer-config"}, {"t5xxl", "threads"}),
            "format": ({"format", "scaling-mode", "convrot"}, {"optimizer"}),
            "gptq": ({"gptq-actorder", "gptq-block-size", "damping"}, {"quip-seed", "lr"}),
            "learned-rounding": ({"learned-rounding-variant", "lr", "num-iter", "damping"}, {"gptq-actorder"}),
            "lora": ({"merge-lora", "merge-loras", "merge-lora-scale"}, {"calibration-data"}),
            "quality": ({"report-quality", "fail-below"}, {"format"}),
            "memory": ({"in-flight", "low-memory"}, {"format"}),
            "advanced": ({"lr", "gptq-actorder", "in-flight"}, {"format"}),
            "experimental": ({"custom-layers", "smoothquant", "gptq-actorder", "layer-config"}, {"format"}),
        }
        for topic, (inside, outside) in expected.items():
            with self.subTest(topic):
                page = flags_on(qmill("convert", "--help", topic)[0])
                self.assertLessEqual(inside, page)
                self.assertFalse(outside & page)

    def test_old_forms_print_the_same_pages(self):
        for topic, forms in {"experimental": ("--help-experimental", "-he", "--help_experimental"), "filters": ("--help-filters", "-hf"),
                             "advanced": ("--help-advanced", "-ha")}.items():
            page = qmill("convert", "--help", topic)[0]
            for form in forms:
                self.assertEqual(qmill("convert", form)[0], page)
                self.assertEqual(qmill(form)[0], page)

    def test_other_spellings(self):
        page = qmill("convert", "--help", "gptq")[0]
        for words in (("--help", "gptq"), ("help", "gptq"), ("convert", "-h", "gptq"), ("convert", "--help=gptq"), ("convert", "--help", "GPTQ".lower())):
            self.assertEqual(qmill(*words)[0], page)
        self.assertEqual(qmill("convert", "--help", "learned_rounding")[0].splitlines()[1:], qmill("convert", "--help", "learned-rounding")[0].splitlines()[1:])
        self.assertEqual(qmill("help", "verify")[0], qmill("verify", "--help")[0])

    def test_an_unknown_topic_is_a_usage_error_that_lists_them(self):
        for words in (("convert", "--help", "fliters"), ("--help", "fliters"), ("help", "fliters"), ("convert", "-h", "fliters")):
            output, error = qmill(*words, status=2)
            self.assertEqual(output, "")
            self.assertIn("did you mean 'filters'?", error)
            self.assertIn("experimental", error)
        _, error = qmill("verify", "--help", "filters", status=2)
        self.assertIn("no help topic 'filters'", error)

    def test_help_beats_what_is_wrong_elsewhere(self):
        self.assertIn("Examples:", qmill("convert", "nowhere.safetensors", "--help")[0])

    def test_the_overview_names_every_command_once_and_fits_a_terminal(self):
        text = qmill("--help")[0]
        self.assertLessEqual(set(COMMANDS), set(commands()))
        for line in text.splitlines():
            self.assertLess(len(line), 140, line)

    def test_lines_of_pages_fit_a_terminal(self):
        for command in commands():
            for line in qmill(command, "--help", "all")[0].splitlines():
                if line.startswith(" " * 30):
                    self.assertLessEqual(len(line), 100, line)

    def test_the_table_as_json_is_the_printed_page(self):
        for command in commands():
            table = help_table(command)
            self.assertEqual(table["command"], command)
            self.assertEqual({flag["name"] for flag in table["flags"]}, flags_on(qmill(command, "--help", "all")[0]))


class Bash(TempFolder):
    def complete(self, *words):
        """What the script offers for the last word."""
        script = self.folder / "qmill.bash"
        if not script.exists():
            script.write_text(qmill("completion", "bash")[0])
        program = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _qmill; ((${#COMPREPLY[@]})) && printf "%s\\n" "${COMPREPLY[@]}"; true'
        result = subprocess.run(["bash", "--norc", "-c", program, "bash", script, *words], capture_output=True, text=True, cwd=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stderr, "")
        return result.stdout.split()

    def test_the_script_is_valid_and_registers_itself(self):
        script = self.folder / "script"
        script.write_text(qmill("completion", "bash")[0])
        subprocess.run(["bash", "-n", script], check=True)
        printed = subprocess.run(["bash", "--norc", "-c", f"source {script}; complete -p qmill"], capture_output=True, text=True, check=True).stdout
        self.assertIn("_qmill", printed)

    def test_commands(self):
        self.assertEqual(set(self.complete("qmill", "")), set(commands()) | {"help"})
        self.assertEqual(set(self.complete("qmill", "p")), {"plan", "plugins"})

    def test_every_flag_in_every_spelling(self):
        for command in commands():
            expected = set().union(*(spellings(flag) for flag in help_table(command)["flags"]))
            self.assertEqual(set(self.complete("qmill", command, "-")), expected)

    def test_without_a_command_the_flags_are_those_of_convert(self):
        self.assertEqual(self.complete("qmill", "-i", "a.safetensors", "--gptq-acto"), ["--gptq-actorder"])
        self.assertEqual(self.complete("qmill", "--no-comfy"), ["--no-comfy-quant"])

    def test_values(self):
        self.assertEqual(self.complete("qmill", "convert", "--scaling-mode", ""), ["row", "tensor", "block", "axis"])
        self.assertEqual(self.complete("qmill", "convert", "--scaling_mode", "t"), ["tensor"])
        self.assertEqual(self.complete("qmill", "convert", "--keep-dtype", "=", "b"), ["bf16"])
        self.assertEqual(self.complete("qmill", "convert", "--keep-dtype", "="), ["f32", "bf16", "f16"])
        self.assertIn("gptq", self.complete("qmill", "convert", "--optimizer", "g"))
        self.assertIn("t5xxl", self.complete("qmill", "convert", "--filter", "t5"))
        self.assertEqual(self.complete("qmill", "convert", "--scale-search", ""), ["auto", "hessian", "mse", "off"])
        self.assertIn("experimental", self.complete("qmill", "convert", "--help", "exp"))
        self.assertEqual(self.complete("qmill", "completion", ""), ["bash", "zsh"])
        self.assertEqual(self.complete("qmill", "plugins", "i"), ["info"])

    def test_files_are_left_to_the_shell(self):
        for words in (("convert", "--calibration-data", ""), ("convert", "-i", "m"), ("inspect", "")):
            self.assertEqual(self.complete("qmill", *words), [])
        self.assertIn("-o default", qmill("completion", "bash")[0])


class Zsh(TempFolder):
    def test_every_flag_is_in_it(self):
        script = qmill("completion", "zsh")[0]
        self.assertTrue(script.startswith("#compdef qmill\n"))
        sections = dict(re.findall(r"^    (\w+)\)\n      _arguments.*?\n(.*?)      ;;$", script, re.MULTILINE | re.DOTALL))
        self.assertEqual(sorted(sections), commands())
        for command, section in sections.items():
            for flag in help_table(command)["flags"]:
                for spelling in spellings(flag):
                    self.assertRegex(section, rf"'\*?{re.escape(spelling)}=?\[", f"{command} {spelling}")
            for line in section.splitlines():
                # Quotes are balanced, and every bracket inside of the help is escaped.
                self.assertEqual(line.replace("'\\''", "").count("'") % 2, 0, line)
                body = re.sub(r"\\.", "", line)
                self.assertEqual((body.count("["), body.count("]")) if "*:file" not in line and "1:what" not in line else (1, 1), (1, 1), line)

    @unittest.skipIf(shutil.which("zsh") is None, "there is no zsh here")
    def test_zsh_takes_it(self):
        script = self.folder / "_qmill"
        script.write_text(qmill("completion", "zsh")[0])
        subprocess.run(["zsh", "-n", script], check=True)

    def test_other_shells_are_named(self):
        self.assertIn("known: bash, zsh", qmill("completion", "fish", status=2)[1])
        self.assertIn("known: bash, zsh", qmill("completion", status=2)[1])


class Man(TempFolder):
    def test_every_flag_of_every_command_is_on_it(self):
        page = qmill("man")[0]
        self.assertTrue(page.startswith(".TH QMILL 1 "))
        plain = page.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "")
        entries = set(re.findall(r"(?<=\.TP\n).*", plain))
        written = {word for entry in entries for word in re.findall(r"(?:^|(?<=, ))--?[\w.-]+", entry)}
        for command in commands():
            for flag in help_table(command)["flags"]:
                self.assertLessEqual(spellings(flag), written, f"{command} --{flag['name']}")
        for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES"):
            self.assertIn(f"\n.SH {section}\n", page)

    def test_no_text_is_taken_for_a_request(self):
        known = {".TH", ".SH", ".SS", ".TP", ".B", ".nf", ".fi"}
        for line in qmill("man")[0].splitlines():
            self.assertFalse(line.startswith("'"), line)
            if line.startswith("."):
                self.assertIn(line.split()[0], known)

    @unittest.skipIf(shutil.which("groff") is None, "there is no groff here")
    def test_groff_sets_it_without_a_warning(self):
        page = self.folder / "qmill.1"
        page.write_text(qmill("man")[0])
        result = subprocess.run(["groff", "-man", "-ww", "-Tutf8", page], capture_output=True, text=True, check=True)
        self.assertEqual(result.stderr, "")
        text = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", result.stdout)
        self.assertIn("--merge-lora-scale", text)
        self.assertIn("--no-comfy-quant", text)
