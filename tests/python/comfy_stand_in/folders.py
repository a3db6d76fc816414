"""ComfyUI's `folder_paths`: model folders of several directories, and the output folder."""

from __future__ import annotations

from pathlib import Path

_directories: dict[str, list[Path]] = {}
_output = Path()


def use(root: Path) -> None:
    """Looks for everything below `root` from now on. A model folder may have two directories, as in ComfyUI."""
    global _output
    _directories.clear()
    for name, parts in {
        "diffusion_models": ["unet", "diffusion_models"],
        "checkpoints": ["checkpoints"],
        "text_encoders": ["text_encoders", "clip"],
    }.items():
        _directories[name] = [root / "models" / part for part in parts]
        for directory in _directories[name]:
            directory.mkdir(parents=True, exist_ok=True)
    _output = root / "output"
    _output.mkdir(exist_ok=True)


def get_output_directory() -> str:
    return str(_output)


def get_filename_list(folder_name: str) -> list[str]:
    found = {
        str(path.relative_to(directory))
        for directory in _directories[folder_name]
        for path in directory.rglob("*")
        if path.suffix in (".safetensors", ".ckpt", ".pt")
    }
    return sorted(found)


def get_full_path(folder_name: str, filename: str) -> str | None:
    for directory in _directories[folder_name]:
        if (directory / filename).is_file():
            return str(directory / filename)
    return None
