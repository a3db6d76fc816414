"""The command `qmill`: the program of the installation, in place of this process.

A package of its own: `import qmill` imports torch, which takes longer than the program itself.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from qmill_command.installation import installed_torch, prefix


def main() -> NoReturn:
    """Runs the program with the arguments of this process. Exit status 1 if it is not there."""
    try:
        version, libraries = installed_torch()
        program = prefix(version) / "bin" / "qmill"
        # Found without this where torch is beside qmill, as it is after `pip install` of both into one place.
        path = os.environ.get("LD_LIBRARY_PATH")
        os.environ["LD_LIBRARY_PATH"] = f"{libraries}:{path}" if path else str(libraries)
        os.execv(program, ["qmill", *sys.argv[1:]])
    except (ImportError, OSError) as error:
        print(f"qmill: error: {error}", file=sys.stderr)
        sys.exit(1)
