"""The bytes that qmill writes are those that are pinned in sha256.json: work on the code that is to change none can prove that it does not.

Where bytes are to change, say why in the commit and pin the new ones: `python conversions.py --command QMILL --write sha256.json`.
"""

import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from conversions import CONVERSIONS
from runner import hashes_of, run_all
from sources import write_all

QMILL = Path(os.environ["QMILL"])
PINNED = json.loads((Path(__file__).parent / "sha256.json").read_text())
THREADS = 2  # the bytes are the same for any number

LEAST = 60

# Groups of flags of convert that change no byte, and flags that do not beside them.
SILENT_GROUPS = {"General", "Running", "Memory", "For GPUs"}
SILENT_FLAGS = {"input", "output", "overwrite", "report-quality", "report", "fail-below", "quality"}


def help_json(*words):
    return json.loads(subprocess.run([QMILL, *words, "--json"], capture_output=True, text=True, check=True).stdout)


class List(unittest.TestCase):
    def test_every_conversion_is_pinned(self):
        self.assertGreaterEqual(len(CONVERSIONS), LEAST)
        self.assertEqual(sorted(CONVERSIONS), sorted(PINNED))
        for name, pinned in PINNED.items():
            self.assertRegex(pinned, "^[0-9a-f]{64}$", name)

    def test_every_flag_that_changes_bytes_occurs(self):
        given = {re.sub("^no-", "", flag) for line in CONVERSIONS.values() for flag in re.findall(r"--([\w-]+)", line)}
        filters = {entry["name"].replace("_", "-") for entry in help_json("filters", "list")}
        flags = [flag for flag in help_json("convert", "--help", "all")["flags"] if flag["group"] not in SILENT_GROUPS]
        names = {re.sub("^no-", "", flag["name"]) for flag in flags} - filters - SILENT_FLAGS
        self.assertGreater(len(names), 80)
        self.assertEqual(sorted(names - given), [])


class Outputs(unittest.TestCase):
    def test_they_are_the_pinned_bytes(self):
        with tempfile.TemporaryDirectory() as holder:
            folder = Path(holder)
            write_all(folder)
            failures = run_all(QMILL, folder, CONVERSIONS, THREADS)
            found = hashes_of(folder, CONVERSIONS)
        wrong = [f"{name}: {failures.get(name, 'other bytes')}\n    qmill {CONVERSIONS[name]}"
                 for name in CONVERSIONS if found.get(name) != PINNED.get(name)]
        self.assertFalse(wrong, f"{len(wrong)} of {len(CONVERSIONS)} conversions:\n" + "\n".join(wrong))


if __name__ == "__main__":
    unittest.main()
