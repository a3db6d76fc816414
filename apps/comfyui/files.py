"""Names of files in ComfyUI's folders: the choices of a model, where rows are stored, where results are stored."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePath

from .host import comfyui

DIFFUSION_FOLDERS = ("diffusion_models", "checkpoints")
TEXT_ENCODER_FOLDERS = ("text_encoders",)
ALL_FOLDERS = DIFFUSION_FOLDERS + TEXT_ENCODER_FOLDERS

ENDING = ".safetensors"


def model_choices(folders: Iterable[str]) -> list[str]:
    """`FOLDER/NAME` of every file in these of ComfyUI's model folders, in ComfyUI's order."""
    folder_paths = comfyui("folder_paths")
    return [f"{folder}/{name}" for folder in folders for name in folder_paths.get_filename_list(folder)]


def model_path(choice: str) -> Path:
    """The file of a choice of `model_choices`.

    Raises FileNotFoundError if it is not there any more, ValueError if it is no such choice.
    """
    folder, slash, name = choice.partition("/")
    if not slash or folder not in ALL_FOLDERS or not name:
        raise ValueError(f"'{choice}' is no model file: choose one of the list, such as 'diffusion_models/NAME'")
    path = comfyui("folder_paths").get_full_path(folder, name)
    if path is None:
        raise FileNotFoundError(
            f"'{name}' is not in ComfyUI's folder '{folder}': reload the page, and choose a file that exists"
        )
    return Path(path)


def rows_path(name: str) -> Path:
    """The file of rows: `name` below ComfyUI's output folder, or an absolute path as it is.

    Raises ValueError for a name that leaves the output folder or has another ending.
    """
    path = Path(name.strip()).expanduser()
    if path.is_absolute() and path.suffix == ENDING:
        return path
    return _below(Path(comfyui("folder_paths").get_output_directory()), name, "rows_file")


def new_rows_path(name: str) -> Path:
    """As `rows_path`, and creates the folders below ComfyUI's output folder that `name` names."""
    path = rows_path(name)
    if Path(comfyui("folder_paths").get_output_directory()) in path.parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    return path


def result_path(model: str, source: Path, file_name: str, suffix: str) -> Path:
    """Where the conversion of `source`, the file of the choice `model`, is stored: in the same model folder.

    An empty `file_name` stands for the name of the source with `suffix`. Raises ValueError for a name that leaves the
    folder or has another ending.
    """
    folder, _, name = model.partition("/")
    depth = len(PurePath(name).parts)
    root = source.parents[depth - 1]
    if not file_name.strip():
        return source.with_name(f"{source.stem}{suffix}{ENDING}")
    return _below(root, file_name, "file_name")


def _below(root: Path, file_name: str, widget: str) -> Path:
    name = PurePath(file_name.strip())
    if not name.parts or name.is_absolute() or ".." in name.parts:
        raise ValueError(f"{widget} '{file_name}' must be a name below '{root}', without '..'")
    if name.suffix != ENDING:
        raise ValueError(f"{widget} '{file_name}' must end with '{ENDING}'")
    return root / name
