"""The files of a saved folder that belong in a Hub repository."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from huggingface_hub.constants import CONFIG_NAME

from .layout import ADAPTER_FOLDER, INDEX_FOLDER, MODULES_NAME, RESULTS_FOLDER
from .saved import read_json

# What transformers, sentence-transformers and this package write at the top of a folder: weights, configs,
# tokenizers, code, card, figures. Optimizer checkpoints and pickles are not among them.
SUFFIXES = {".safetensors", ".json", ".txt", ".model", ".jinja", ".py", ".md", ".yaml", ".png", ".svg"}
NAMES = {"LICENSE", "NOTICE"}


class RepositoryFile(NamedTuple):
    """A file of a repository.

    Args:
        name: Its path in the repository.
        content: The file on disk, or its bytes.
        size: Bytes.
    """

    name: str
    content: Path | bytes
    size: int


def repository_files(folder: Path, with_index: bool = False) -> list[RepositoryFile]:
    """List the files of a saved model, adapter or retriever that belong in a repository.

    These are the files at the top that loaders and readers know, and the folders of sentence-transformers'
    modules, of the adapter, of evaluation results and, with `with_index`, of the index. Hidden files and
    everything else, such as checkpoints, are left out.

    Args:
        folder: The folder.
        with_index: Include the index.

    Raises:
        NotADirectoryError: If `folder` isn't a folder.
        FileNotFoundError: If it holds no model, or no index with `with_index`.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("config.json", "model.safetensors", "optimizer.pt"):
        ...     _ = (folder / name).write_text("{}")
        >>> [file.name for file in repository_files(folder)]
        ['config.json', 'model.safetensors']
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"folder must be a folder, got {folder}.")
    if not (folder / CONFIG_NAME).exists() and not (folder / MODULES_NAME).exists():
        raise FileNotFoundError(f"{folder} holds no model: it has neither {CONFIG_NAME} nor {MODULES_NAME}.")
    if with_index and not (folder / INDEX_FOLDER).is_dir():
        raise FileNotFoundError(f"{folder} has no index; make one with `rrra index`.")
    parts = [*_module_folders(folder), ADAPTER_FOLDER, RESULTS_FOLDER]
    if with_index:
        parts.append(INDEX_FOLDER)
    paths = {path for path in folder.iterdir() if path.suffix in SUFFIXES or path.name in NAMES}
    paths.update(path for part in parts for path in (folder / part).rglob("*"))
    return sorted(
        RepositoryFile(path.relative_to(folder).as_posix(), path, path.stat().st_size)
        for path in paths
        if path.is_file() and not path.name.startswith(".")
    )


def _module_folders(folder: Path) -> list[str]:
    path = folder / MODULES_NAME
    modules = read_json(path) if path.exists() else []
    return [module["path"] for module in modules if module["path"]]


def total_size(files: Iterable[RepositoryFile]) -> int:
    """Return the number of bytes of all files."""
    return sum(file.size for file in files)


def size_text(size: int) -> str:
    """Return a number of bytes with a unit.

    Example:
        >>> size_text(900), size_text(94_600_000)
        ('900 B', '94.6 MB')
    """
    number, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"


def stale_files(remote: Iterable[str], new: Iterable[str]) -> list[str]:
    """Return the files of a repository that don't belong to the model that replaces its model.

    These are weights in another number of shards, an adapter, an index, and folders of modules. Together
    with the new files they would make neither the old model nor the new one.

    Args:
        remote: Names of the files in the repository.
        new: Names of the files that are uploaded.

    Example:
        >>> stale_files(["README.md", "data.csv", "model.safetensors", "index/meta.json"], ["config.json"])
        ['index/meta.json', 'model.safetensors']
    """
    return sorted(name for name in set(remote) - set(new) if _is_of_model(PurePosixPath(name)))


def _is_of_model(name: PurePosixPath) -> bool:
    if len(name.parts) == 1:
        return name.match("model*.safetensors*")
    top = name.parts[0]
    return top in (ADAPTER_FOLDER, INDEX_FOLDER) or top.partition("_")[0].isdigit()
