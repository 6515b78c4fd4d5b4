"""The files of a saved folder that belong in a Hub repository."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..models.adapter_rrra import CONFIG_NAME
from ..models.layout_rrra import MODULES_NAME
from ..retrieval.retriever import ADAPTER_FOLDER, INDEX_FOLDER

# What is written at the top of a folder by transformers, sentence-transformers and this package: weights,
# configs, tokenizers, code, card, figures. No checkpoint of an optimizer, and no pickle.
SUFFIXES = {".safetensors", ".json", ".txt", ".model", ".jinja", ".py", ".md", ".yaml", ".png", ".svg"}
NAMES = {"LICENSE", "NOTICE"}
# Results of evaluations, as the Hub reads them.
RESULTS_FOLDER = ".eval_results"


class RepositoryFile(NamedTuple):
    """A file on its way to a repository.

    Args:
        name: Its path there.
        path: The file here.
        size: Bytes.
    """

    name: str
    path: Path
    size: int


def repository_files(folder: Path, with_index: bool = False) -> list[RepositoryFile]:
    """List what of a saved model, adapter or retriever belongs in a repository.

    These are the files at the top that a loader or a reader knows, and the folders of
    sentence-transformers' modules, of the adapter, of evaluation results and, if wanted, of the index.
    Hidden files are left out, and everything else that is there, such as checkpoints.

    Args:
        folder: The folder.
        with_index: List the index too.

    Raises:
        NotADirectoryError: If there is no such folder.
        FileNotFoundError: If it holds no model, or no index, though that is wanted.

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
    parts = [
        *_module_folders(folder),
        ADAPTER_FOLDER,
        RESULTS_FOLDER,
        *([INDEX_FOLDER] if with_index else []),
    ]
    paths = [path for path in folder.iterdir() if path.suffix in SUFFIXES or path.name in NAMES]
    for part in parts:
        paths += (folder / part).rglob("*")
    return sorted(
        RepositoryFile(path.relative_to(folder).as_posix(), path, path.stat().st_size)
        for path in set(paths)
        if path.is_file() and not path.name.startswith(".")
    )


def _module_folders(folder: Path) -> list[str]:
    path = folder / MODULES_NAME
    modules = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return [module["path"] for module in modules if module["path"]]


def total_size(files: Iterable[RepositoryFile]) -> int:
    """Return the bytes of all files."""
    return sum(file.size for file in files)


def size_text(size: int) -> str:
    """Return a number of bytes for people.

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
    """Return the files of a repository that would not belong to the model that is put there.

    Those are weights of another number of shards, parts of another retriever, and modules of another chain:
    with them the repository would be neither model.

    Args:
        remote: Files that are there.
        new: Files to be put there.

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
