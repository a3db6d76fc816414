"""Where the libraries and the program are.

A wheel has one folder per minor version of torch that it was built for: `torch-2.13/`, with `bin`, `lib`, `include` and
`share`. The libraries work only with the LibTorch that they were built for.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from pathlib import Path

PREFIX_VARIABLE = "QMILL_PREFIX"


def prefix(torch_version: str) -> Path:
    """The folder for this version of torch, such as "2.13.0+cpu".

    The variable QMILL_PREFIX names another one, such as a build folder. Raises ImportError if there is none.
    """
    if override := os.environ.get(PREFIX_VARIABLE):
        return Path(override)
    here = Path(__file__).resolve().parents[1] / "qmill"
    minor = ".".join(torch_version.split(".")[:2])
    found = here / f"torch-{minor}"
    if found.is_dir():
        return found
    known = sorted(folder.name.removeprefix("torch-") for folder in here.glob("torch-*"))
    if not known:
        raise ImportError(
            f"qmill has no libraries in '{here}'; install it (pip install .), or set {PREFIX_VARIABLE} to a build folder"
        )
    raise ImportError(
        f"this qmill was built for torch {', '.join(known)}, and torch {torch_version} is installed; "
        f"install torch {known[-1]}, or build qmill with the torch that you have"
    )


def installed_torch() -> tuple[str, Path]:
    """The version of torch and the folder of its libraries. Raises ImportError if torch is not installed."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise ImportError("qmill needs torch, which is not installed; pip install torch")
    return importlib.metadata.version("torch"), Path(spec.origin).resolve().parent / "lib"


def cmake_prefix_path() -> str:
    """For the authors of plugins: where CMake finds the package, as in `-DCMAKE_PREFIX_PATH=...`."""
    return str(prefix(installed_torch()[0]))
