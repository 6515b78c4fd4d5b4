"""Named arrays in a folder, one `.npy` file each, and the memory-mapped arrays of such a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..models.files_rrra import write_aside, write_json
from .checksums import ENTRY, checksums

META_NAME = "words.json"
FORMAT_VERSION = 1
# Values that are checked at a time.
BLOCK_SIZE = 2**20


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Write arrays and metadata to a folder, complete or not at all.

    Args:
        path: The folder. Arrays that were saved there before are replaced.
        arrays: The arrays by name.
        meta: Metadata, for a JSON file.

    Raises:
        ValueError: If the folder holds other files.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "arrays"
        >>> save_arrays(path, {"ones": np.ones(2)}, {"count": 2})
        >>> load_array(path, "ones", np.float64, 2).tolist()
        [1.0, 1.0]
    """
    files = {f"{name}.npy": array for name, array in arrays.items()}
    with write_aside(path, owned=(META_NAME, *files)) as folder:
        folder.mkdir()
        for name, array in files.items():
            np.save(folder / name, array, allow_pickle=False)
        write_json(folder / META_NAME, {"format_version": FORMAT_VERSION, **meta, ENTRY: checksums(folder)})


def load_array(path: str | os.PathLike[str], name: str, dtype: type[np.generic], size: int) -> np.ndarray:
    """Open an array of a folder, memory-mapped.

    Args:
        path: The folder.
        name: Name of the array.
        dtype: Its type.
        size: Its length.

    Returns:
        `(size,)`, read-only. Pages are read from disk on access.

    Raises:
        ValueError: If the file is missing or damaged, or holds another array; the message names it.
    """
    file = Path(path) / f"{name}.npy"
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # What NumPy raises for a damaged header is of many kinds.
        raise ValueError(f"{file} is missing or damaged: {error}") from error
    if array.dtype != dtype or array.shape != (size,):
        expected = f"({size},) {np.dtype(dtype)}"
        raise ValueError(f"{file} must hold {expected}, got {array.shape} {array.dtype}.")
    # A plain array: reading one number of a memory map takes ten times as long.
    return array.view(np.ndarray)


def load_ends(
    path: str | os.PathLike[str], name: str, dtype: type[np.generic], size: int, last: int
) -> np.ndarray:
    """Open an array of a folder that says where parts of others end: it starts at 0 and doesn't descend.

    Args:
        path: The folder.
        name: Name of the array.
        dtype: Its type.
        size: Its length.
        last: Its last value.

    Raises:
        ValueError: If the file is missing or damaged, or holds another array; the message names it.
    """
    ends = load_array(path, name, dtype, size)
    if ends[0] != 0 or ends[-1] != last or (ends[1:] < ends[:-1]).any():
        raise ValueError(f"{Path(path) / name}.npy is damaged: its values must ascend from 0 to {last}.")
    return ends


def load_rows(
    path: str | os.PathLike[str], name: str, dtype: type[np.generic], ends: np.ndarray, limit: int
) -> np.ndarray:
    """Open an array of a folder that lists rows of other arrays, in parts that ascend.

    Args:
        path: The folder.
        name: Name of the array.
        dtype: Its type.
        ends: Where each part starts and ends, of `load_ends`.
        limit: The rows are less than this.

    Raises:
        ValueError: If the file is missing or damaged, or holds another array; the message names it.
    """
    rows = load_array(path, name, dtype, int(ends[-1]))
    starts = np.zeros(len(rows) + 1, dtype=bool)
    starts[ends] = True
    for start in range(0, len(rows), BLOCK_SIZE):
        # And the first of the next block.
        block = rows[start : start + BLOCK_SIZE + 1]
        ascends = (block[1:] > block[:-1]) | starts[start + 1 : start + len(block)]
        if block.min() < 0 or block.max() >= limit or not ascends.all():
            raise ValueError(
                f"{Path(path) / name}.npy is damaged: its values must ascend in each part, below {limit}."
            )
    return rows


def load_numbers(path: str | os.PathLike[str], name: str, size: int) -> np.ndarray:
    """Open an array of a folder that holds finite single-precision numbers of at least 0.

    Args:
        path: The folder.
        name: Name of the array.
        size: Its length.

    Raises:
        ValueError: If the file is missing or damaged, or holds another array; the message names it.
    """
    numbers = load_array(path, name, np.float32, size)
    # A comparison with NaN is false.
    if size and not (numbers.min() >= 0 and numbers.max() < np.inf):
        raise ValueError(f"{Path(path) / name}.npy is damaged: its values must be finite and not negative.")
    return numbers
