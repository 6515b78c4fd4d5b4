"""Validation of arrays of embeddings."""

from __future__ import annotations

import numpy as np

BLOCK_SIZE = 16_384


def check_embeddings(embeddings: np.ndarray, name: str, dim: int | None = None) -> np.ndarray:
    """Return `embeddings` as an array after checking that it is a matrix of finite numbers.

    Memory-mapped arrays are read block by block.

    Args:
        embeddings: `(n, dim)`.
        name: Name of the argument, for the error message.
        dim: Expected dimension.

    Raises:
        ValueError: If the array isn't a matrix, is empty, has another dimension, or has values that are NaN
            or too large for float32.

    Example:
        >>> check_embeddings(np.array([[1.0, np.nan]]), "queries")
        Traceback (most recent call last):
        ValueError: queries must be finite: 1 of 1 rows hold NaN or infinite values, the first is row 0.
    """
    array = np.asarray(embeddings)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be numbers of shape (n, dim), got {array.dtype} {array.shape}.")
    if 0 in array.shape:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}.")
    if dim is not None and array.shape[1] != dim:
        raise ValueError(f"{name} must have dimension {dim}, got {array.shape[1]}.")
    bad = non_finite_rows(array)
    if len(bad):
        raise ValueError(
            f"{name} must be finite: {len(bad)} of {len(array)} rows hold NaN or infinite values, "
            f"the first is row {bad[0]}."
        )
    return array


def non_finite_rows(embeddings: np.ndarray) -> np.ndarray:
    """Return the rows that have NaN or values too large for float32, in ascending order."""
    found = []
    for start in range(0, len(embeddings), BLOCK_SIZE):
        with np.errstate(over="ignore"):
            block = np.asarray(embeddings[start : start + BLOCK_SIZE], dtype=np.float32)
        found.append(start + np.flatnonzero(~np.isfinite(block).all(axis=1)))
    return np.concatenate(found)


def check_finite(embeddings: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return the embeddings of the texts at `positions` after checking that they are finite.

    Raises:
        ValueError: If there are NaN or infinite values. The message has the number of rows and a position.
    """
    bad = non_finite_rows(embeddings)
    if len(bad):
        raise ValueError(
            f"The model gave NaN or infinite values for {len(bad)} of {len(embeddings)} texts encoded "
            f"together, the first at position {positions[bad].min()}; its weights may be damaged, or its "
            "precision too low."
        )
    return embeddings
