"""The wheel, in an environment with torch and nothing else, from another folder, without the build folder."""

import os
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import torch

from support import BUILD, SOURCE, FolderTest, run_command

EXAMPLE = """
import sys, qmill
result = qmill.convert(sys.argv[1], sys.argv[2])
print(result.output_bytes, qmill.__file__, qmill._native._library._name)
"""


class Wheel(FolderTest):
    def test_is_installed_and_used(self):
        wheel = self.built()
        self.check_contents(wheel)
        python = self.environment()
        start = time.monotonic()
        self.run_clean(python, "-m", "pip", "install", "--quiet", "--no-index", wheel)
        print(f"installed in {time.monotonic() - start:.1f} s")

        model = self.model()
        expected = self.folder / "expected.safetensors"
        run_command("convert", model, expected)
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        printed = self.run_clean(python, "-c", EXAMPLE, model, elsewhere / "by_python.safetensors", cwd=elsewhere)
        size, module, library = printed.split()
        self.assertEqual(int(size), expected.stat().st_size)
        for place in (module, library):
            self.assertTrue(Path(place).resolve().is_relative_to(self.folder.resolve()), place)
        self.run_clean(python.with_name("qmill"), "-i", model, "-o", elsewhere / "by_command.safetensors", cwd=elsewhere)
        for written in elsewhere.iterdir():
            self.assertEqual(written.read_bytes(), expected.read_bytes())
        self.assertIn("gptq", self.run_clean(python.with_name("qmill"), "plugins", "list"))
        self.check_that_nothing_is_of_the_build(python)

        self.check_another_torch(python)

    def built(self):
        done = subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", self.folder / "wheels", SOURCE,
             "--config-settings", f"build-dir={self.folder / 'build'}",
             "--config-settings", f"cmake.define.QMILL_PREBUILT={BUILD}",
             "--config-settings", f"cmake.define.CMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"],
            capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        (wheel,) = (self.folder / "wheels").iterdir()
        return wheel

    def check_contents(self, wheel):
        self.assertIn("-py3-none-", wheel.name)
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
        folder = f"qmill/torch-{'.'.join(torch.__version__.split('.')[:2])}"
        for name in ("qmill/__init__.py", "qmill/py.typed", "qmill/options.py", f"{folder}/bin/qmill", f"{folder}/lib/libqmill_core.so",
                     f"{folder}/lib/libqmill_python.so", f"{folder}/lib/qmill/plugins/libqmill_gptq.so",
                     f"{folder}/lib/qmill/plugins/filters_text.json", f"{folder}/lib/cmake/qmill/qmillConfig.cmake",
                     f"{folder}/include/qmill/plugin.h", f"{folder}/share/man/man1/qmill.1"):
            self.assertIn(name, names)
        self.assertEqual([name for name in names if "libtorch" in name or "libc10" in name or "_write_options.pyc" in name], [])

    def environment(self):
        """With the torch of this Python, and what torch needs."""
        home = self.folder / "environment"
        venv.create(home, with_pip=True, symlinks=True)
        python = home / "bin" / "python"
        packages = Path(self.run_clean(python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))").strip())
        for entry in Path(torch.__file__).parents[1].iterdir():
            if not entry.name.startswith(("qmill", "pip", "__pycache__")) and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
        return python

    def check_that_nothing_is_of_the_build(self, python):
        loaded = self.run_clean(python, "-c", "import qmill; qmill.filters(); print(open('/proc/self/maps').read())")
        self.assertIn("libqmill_core.so", loaded)
        self.assertNotIn(str(BUILD), loaded)

    def check_another_torch(self, python):
        code = "import torch; torch.__version__ = '1.2.3'\nimport qmill"
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=self.clean())
        self.assertIn(f"built for torch {'.'.join(torch.__version__.split('.')[:2])}, and torch 1.2.3 is installed", done.stderr)
        self.assertEqual(done.returncode, 1)

    def clean(self):
        return {name: value for name, value in os.environ.items() if not name.startswith(("QMILL", "PYTHON", "LD_"))}

    def run_clean(self, *words, cwd=None):
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=cwd, env=self.clean())
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout


if __name__ == "__main__":
    import unittest

    unittest.main()
