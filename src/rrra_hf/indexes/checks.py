"""Validation and normalisation, shared by all indexes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np

from ..embeddings import check_embeddings

# Squared length of a normalised embedding, with the error of single precision.
LONGEST = 1.001


def check_search(queries: np.ndarray, k: int, dim: int, size: int) -> np.ndarray:
    """Return `queries` as an array after checking the arguments of a search in `size` documents.

    Raises:
        ValueError: If `queries` has a wrong shape or values that aren't finite, `k` is less than 1, or the
            index is empty.
    """
    queries = check_embeddings(queries, "queries", dim)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    if not size:
        raise ValueError("The index is empty; add documents before searching.")
    return queries


def check_rows(rows: np.ndarray, size: int) -> np.ndarray:
    """Return `rows` as int64 after checking that they are rows of an index of `size` documents.

    Raises:
        ValueError: If a row is out of range.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if rows.size and (rows.min() < 0 or rows.max() >= size):
        raise ValueError(f"rows must be in [0, {size}), got values from {rows.min()} to {rows.max()}.")
    return rows


def check_allowed(allowed: np.ndarray | None, size: int) -> np.ndarray | None:
    """Return the rows to search among as int64, None if they are all.

    Raises:
        ValueError: If a row is out of range, or they don't ascend.
    """
    if allowed is None:
        return None
    rows = check_rows(allowed, size)
    if rows.ndim != 1 or (rows[1:] <= rows[:-1]).any():
        raise ValueError("allowed must be rows in ascending order, each once.")
    return None if len(rows) == size else rows


def selector(allowed: np.ndarray | None, size: int) -> Any:
    """Return what FAISS selects rows of an index of `size` documents with, None if there are no others.

    Give it to the constructor of search parameters, which keeps it as long as they live.
    """
    if allowed is None:
        return None
    bits = np.zeros(size, dtype=bool)
    bits[allowed] = True
    # The type stubs of FAISS lack the constructor of this class.
    bitmap: Any = faiss.IDSelectorBitmap
    return bitmap(np.packbits(bits, bitorder="little"))


def flat_parameters(allowed: np.ndarray | None, size: int) -> Any:
    """Return FAISS search parameters that select rows, all if None, for an index that compares them all."""
    # The type stubs of FAISS lack the constructor of this class.
    parameters: Any = faiss.SearchParameters
    return parameters(sel=selector(allowed, size))


def check_ids(ids: Sequence[str], count: int | None = None) -> list[str]:
    """Return `ids` as a list after checking that they are document ids, one per embedding.

    Raises:
        ValueError: If an id isn't a string or is empty, or there aren't `count` ids.

    Example:
        >>> check_ids(["a", ""])
        Traceback (most recent call last):
        ValueError: ids must be non-empty strings, got '' at position 1.
    """
    if isinstance(ids, str):
        raise ValueError(f"ids must be a sequence of strings, got the string {ids!r}.")
    ids = list(ids)
    for position, document_id in enumerate(ids):
        if not isinstance(document_id, str) or not document_id:
            raise ValueError(f"ids must be non-empty strings, got {document_id!r} at position {position}.")
    if count is not None and len(ids) != count:
        raise ValueError(f"ids must have one entry per embedding ({count}), got {len(ids)}.")
    return ids


def normalized(embeddings: np.ndarray) -> np.ndarray:
    """Return a float32 copy with rows of length 1. Rows of zeros stay zero."""
    copy = np.array(embeddings, dtype=np.float32, order="C")
    faiss.normalize_L2(copy)
    return copy


def check_normalized(embeddings: np.ndarray, path: str | os.PathLike[str], first: int = 0) -> None:
    """Refuse embeddings of a file that are longer than 1 or not finite, `(n, dim)`.

    Args:
        embeddings: The embeddings, or a block of them.
        path: The file.
        first: Row of the first of them in the file.

    Raises:
        ValueError: If there are any; the message names the file and a row.
    """
    lengths = np.einsum("nd,nd->n", embeddings, embeddings)
    bad = np.flatnonzero(~(lengths <= LONGEST))
    if len(bad):
        raise ValueError(
            f"{path} is damaged: it must hold embeddings of length 1, row {first + bad[0]} is of length "
            f"{np.sqrt(lengths[bad[0]])}."
        )
