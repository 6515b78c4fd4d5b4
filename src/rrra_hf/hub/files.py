"""The files of a saved folder that belong in a Hub repository."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from huggingface_hub.constants import CONFIG_NAME

from .layout import ADAPTER_FOLDER, EVALUATION_NAME, INDEX_FOLDER, MODULES_NAME, RESULTS_FOLDER
from .saved import read_json

logger = logging.getLogger(__name__)

# What transformers, sentence-transformers and this package write: weights, code, card and pictures have a
# suffix of their own; of texts and JSON files, which may hold anything, the names are known. Optimizer
# checkpoints and pickles are not among them.
SUFFIXES = {".safetensors", ".model", ".jinja", ".py", ".md", ".png", ".svg"}
NAMES = {
    *("LICENSE", "LICENSE.txt", "NOTICE", "NOTICE.txt"),
    *("config.json", "generation_config.json", "model.safetensors.index.json", "adapter_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "preprocessor_config.json", "processor_config.json"),
    *(MODULES_NAME, "config_sentence_transformers.json", "router_config.json", "idf.json", EVALUATION_NAME),
    *(f"sentence_{name}_config.json" for name in ("bert", "roberta", "distilbert", "xlm-roberta", "albert")),
    *(f"{name}_config.json" for name in ("cnn", "lstm", "wordembedding", "whitespacetokenizer")),
}
INDEX_SUFFIXES = {".faiss", ".parquet", ".arrow", ".npy", ".safetensors"}
INDEX_NAMES = {"meta.json", "current.json", "words.json"}
RESULTS_SUFFIXES = {".yaml"}
# A path of a module in modules.json: of plain names, none of them hidden.
MODULE_PATH = re.compile(r"\w[\w .-]*(/\w[\w .-]*)*")
# Weights in one file or in shards, as transformers names them.
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
# The code that a model carries, also that of an earlier version.
CODE = re.compile(r"\w+_rrra\.py")
# A module's folder as sentence-transformers names it.
MODULE_FOLDER = re.compile(r"\d{1,2}_[A-Z]\w*")


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

    These are the files that loaders and readers know, at the top and in the folders of
    sentence-transformers' modules, of the adapter, of evaluation results and, with `with_index`, of the
    index. Hidden files, links to other files and everything else, such as checkpoints, are left out.

    Args:
        folder: The folder.
        with_index: Include the index.

    Raises:
        NotADirectoryError: If `folder` isn't a folder.
        FileNotFoundError: If it holds no model, or no index with `with_index`.
        ValueError: If `modules.json` is damaged or names a place outside of the folder, or a file that
            belongs in the repository is a link.

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
    paths = {*folder.iterdir(), *(path for part in parts for path in _entries(folder / part))}
    found, left_out = [], []
    for path in sorted(path for path in paths if path.is_symlink() or path.is_file()):
        name = path.relative_to(folder).as_posix()
        if not _belongs(PurePosixPath(name)):
            left_out.append(name)
        elif path.is_symlink():
            raise ValueError(f"{path} is a link, which isn't followed; put the file itself in its place.")
        else:
            found.append(RepositoryFile(name, path, path.stat().st_size))
    if left_out:
        logger.info("Not uploaded from %s: %s", folder, ", ".join(left_out))
    return sorted(found)


def _module_folders(folder: Path) -> list[str]:
    path = folder / MODULES_NAME
    modules = read_json(path, list) if path.exists() else []
    paths = [module.get("path") if isinstance(module, dict) else None for module in modules]
    for named in paths:
        if not isinstance(named, str) or (named and not MODULE_PATH.fullmatch(named)):
            raise ValueError(
                f"{path} must name folders inside of its own as paths of modules, got {named!r}."
            )
    return [named for named in paths if named]


def _entries(folder: Path) -> Iterator[Path]:
    """Yield what is in a folder and in the folders below, without following links."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for entry in folder.iterdir():
        yield entry
        yield from _entries(entry)


def _belongs(name: PurePosixPath) -> bool:
    """Whether a file of this name, within the folders of a model, belongs in a repository."""
    top, *below = name.parts
    if any(part.startswith(".") for part in (below if top == RESULTS_FOLDER else name.parts)):
        return False
    if below and top == RESULTS_FOLDER:
        return name.suffix in RESULTS_SUFFIXES
    if below and top == INDEX_FOLDER:
        return name.suffix in INDEX_SUFFIXES or name.name in INDEX_NAMES
    return name.suffix in SUFFIXES or name.name in NAMES


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

    These are weights in another number of shards, code, and the files of an adapter, an index and of modules.
    Together with the new files they would make neither the old model nor the new one. Other files in these
    folders are not among them.

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
        return any(pattern.fullmatch(name.name) for pattern in (WEIGHTS, CODE))
    top = name.parts[0]
    is_part = top in (ADAPTER_FOLDER, INDEX_FOLDER) or MODULE_FOLDER.fullmatch(top)
    return bool(is_part) and _belongs(name)
