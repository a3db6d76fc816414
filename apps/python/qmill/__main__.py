"""The command `qmill`, and `python -m qmill`: the program of the installation, in place of this process."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from qmill._installation import installed_torch, prefix


def main() -> NoReturn:
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


if __name__ == "__main__":
    main()
