"""What FAISS files say of themselves, read without FAISS, which believes them and crashes if they lie."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Type, dimension, number of vectors, two unused numbers, whether it is trained, metric.
HEADER = struct.Struct("<4siqqq?i")
# Number of values that follow.
COUNT = struct.Struct("<Q")
INNER_PRODUCT = 0
FLAT = "IxFI"


class FaissHeader(NamedTuple):
    """How every FAISS file begins.

    Args:
        type: Type of the index, four letters.
        dim: Dimension of the vectors.
        vectors: Number of vectors.
    """

    type: str
    dim: int
    vectors: int


def read_header(path: str | os.PathLike[str]) -> FaissHeader:
    """Read the beginning of a FAISS file.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is cut off, or is no index by inner product.
    """
    with Path(path).open("rb") as file:
        start = file.read(HEADER.size)
    if len(start) < HEADER.size:
        raise ValueError(f"{path} is damaged or not a FAISS index: it has {len(start)} bytes.")
    kind, dim, count, _, _, _, metric = HEADER.unpack(start)
    if not kind.isalnum() or dim < 1 or count < 0 or metric != INNER_PRODUCT:
        raise ValueError(f"{path} is damaged or not a FAISS index by inner product.")
    return FaissHeader(kind.decode("ascii"), dim, count)


def read_flat(path: str | os.PathLike[str]) -> np.ndarray:
    """Open the vectors of an exact FAISS index, memory-mapped.

    Args:
        path: A file of FAISS's `IndexFlatIP`.

    Returns:
        `(n, dim)` float32, read-only.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is damaged or has another index.
    """
    header = read_header(path)
    if header.type != FLAT:
        raise ValueError(f"{path} has a FAISS index of type {header.type}, not the exact one, {FLAT}.")
    start = HEADER.size + COUNT.size
    values, size = header.vectors * header.dim, Path(path).stat().st_size
    with Path(path).open("rb") as file:
        file.seek(HEADER.size)
        declared = file.read(COUNT.size)
    if size != start + 4 * values or declared != COUNT.pack(values):
        raise ValueError(
            f"{path} is damaged or not a FAISS index: it has {size:,} bytes, not those of {header.vectors:,} "
            f"embeddings of dimension {header.dim:,}."
        )
    if not values:
        return np.empty((0, header.dim), dtype=np.float32)
    return np.memmap(path, np.float32, "r", start, (header.vectors, header.dim))
