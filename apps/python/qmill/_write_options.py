"""Writes options.py: the options of `convert` and `quantize` as types, from the table of options of the libraries.

Run it after an option has changed: `python -m qmill._write_options`. A test compares the file with the table.
"""

from __future__ import annotations

import keyword
import textwrap
from pathlib import Path
from typing import Any

from qmill.api import options
from qmill.results import Option

_TYPES = {"bool": "bool", "int": "int", "float": "float", "str": "str"}

# What the functions take besides the type of the table.
_ALSO = {"layer_config": " | Mapping[str, Any]", "convrot": " | int"}

_HEAD = '''"""The options of `convert`, as types. Made by qmill._write_options from the table of options; do not edit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from typing_extensions import TypedDict

_Path = str | os.PathLike[str]
'''


def text() -> str:
    """The contents of options.py."""
    every = [option for option in options() if option.name not in ("input", "output") and option.name.isidentifier()]
    parts = [_HEAD]
    weights = [option for option in every if option.to_dict()["is_of_weights"]]
    parts.append(_class("QuantizeOptions", "TypedDict", "Options of `quantize`.", weights))
    others = [option for option in every if not option.to_dict()["is_of_weights"]]
    parts.append(_class("ConvertOptions", "QuantizeOptions", "Options of `convert` and `plan`.", others))
    return "\n\n".join(parts)


def _class(name: str, base: str, purpose: str, rows: list[Option]) -> str:
    lines = [f"class {name}({base}, total=False):", f'    """{purpose} Comments: the default, and what it does."""', ""]
    for option in sorted(rows, key=lambda each: (each.group, each.name)):
        default = "" if option.default is None else f"Default: {option.default!r}. "
        lines += textwrap.wrap(f"{default}{option.help}.", 112, initial_indent="    # ", subsequent_indent="    # ")
        lines.append(f"    {option.name}: {_annotation(option)}")
    return "\n".join(lines) + "\n"


def _annotation(option: Option) -> str:
    raw: dict[str, Any] = option.to_dict()
    kind = "_Path" if raw["is_path"] else _TYPES[option.type]
    if option.choices:
        kind = f"Literal[{', '.join(repr(choice) for choice in option.choices)}]"
        if raw["takes_numbers"]:
            kind += " | int | float"
    kind += _ALSO.get(option.name, "")
    if option.is_list:
        kind += f" | Sequence[{kind}]"
    return kind


def main() -> None:
    """Writes the file beside this one."""
    assert not any(keyword.iskeyword(option.name) for option in options())
    Path(__file__).with_name("options.py").write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
