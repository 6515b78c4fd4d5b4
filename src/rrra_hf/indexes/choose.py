"""Choose an index by the number of documents and the storage of their embeddings."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from .approximate import ApproximateIndex
from .base import Index
from .flat import FlatIndex
from .folder import current_subfolder
from .kinds import FACTORY
from .patched import BASE_NAME, PatchedIndex
from .quantized import CODES_NAME, STORAGES, QuantizedIndex

logger = logging.getLogger(__name__)

# Maximum number of documents per kind, and the reason.
RULES = [
    (50_000, "flat", "exact search takes a few milliseconds"),
    (5_000_000, "hnsw", "a graph is the fastest, and fits into memory"),
    (
        20_000_000,
        "ivf-sq8",
        "inverted lists are built faster than a graph, and 8 bits a value fit into memory",
    ),
    (None, "ivf-pq", "only product-quantised embeddings fit into memory"),
]
KINDS = ("auto", "flat", *FACTORY)
FLOAT32 = "float32"


def check_kind(kind: str, storage: str = FLOAT32, *others: str) -> None:
    """Raise a ValueError if the kind of index or the storage is unknown, or they don't go together.

    Args:
        kind: The kind, one of `KINDS` or of the others.
        storage: The storage.
        others: Further kinds that are known.
    """
    for name, value, legal in (("kind", kind, (*KINDS, *others)), ("storage", storage, (FLOAT32, *STORAGES))):
        if value not in legal:
            raise ValueError(f"{name} must be one of {', '.join(legal)}, got {value!r}.")
    if storage != FLOAT32 and kind not in ("auto", "flat"):
        raise ValueError(
            f"storage must be {FLOAT32} with kind={kind!r}, which compresses embeddings in its own way, "
            f"got {storage!r}; with {storage!r}, kind must be flat or auto."
        )


def make_index(
    dim: int, count: int, kind: str = "auto", *, storage: str = FLOAT32, seed: int = 0
) -> FlatIndex | ApproximateIndex | QuantizedIndex:
    """Create an empty index. An automatic choice is logged with its reason.

    Args:
        dim: Dimension of the embeddings.
        count: Approximate number of documents.
        kind: `flat`, a kind of `ApproximateIndex`, or `auto`, which chooses by `count`: `flat` up to 50,000,
            `hnsw` up to 5 million, `ivf-sq8` up to 20 million, `ivf-pq` for more.
        storage: `float32`; or `int8` or `binary`, with which all documents are searched, see
            `QuantizedIndex`. These go with the kinds `auto` and `flat`.
        seed: Random seed for training.

    Raises:
        ValueError: If kind or storage is unknown, they don't go together, or `dim` or `count` is less than 1.

    Example:
        >>> type(make_index(384, 10_000)).__name__
        'FlatIndex'
        >>> make_index(384, 10**6).kind, make_index(384, 10**6, "ivf-flat").kind
        ('hnsw', 'ivf-flat')
        >>> type(make_index(384, 10**6, storage="int8")).__name__
        'Int8Index'
    """
    check_kind(kind, storage)
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}.")
    if storage != FLOAT32:
        return STORAGES[storage](dim)
    if kind == "auto":
        kind, reason = next((kind, why) for most, kind, why in RULES if most is None or count <= most)
        logger.info("Index of kind %s for %d documents: %s.", kind, count, reason)
    return FlatIndex(dim) if kind == "flat" else ApproximateIndex(dim, kind, count, seed=seed)


def load_index(path: str | os.PathLike[str]) -> Index:
    """Read an index of any kind: a flat index of float32 from a file, others from a folder.

    Args:
        path: Path of the saved index.

    Raises:
        FileNotFoundError: If the path doesn't exist.
        ValueError: If the index is damaged, or the path has other content.
    """
    if not Path(path).is_dir():
        return FlatIndex.load(path)
    folder = current_subfolder(path)
    if (folder / CODES_NAME).exists():
        return QuantizedIndex.load(path)
    if (folder / BASE_NAME).exists():
        return PatchedIndex.load(path, ApproximateIndex.load)
    return ApproximateIndex.load(path)
