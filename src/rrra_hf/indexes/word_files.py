"""Named arrays in a folder, one `.npy` file each, and the memory-mapped arrays of such a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..models.files_rrra import write_aside, write_json

META_NAME = "words.json"
FORMAT_VERSION = 1


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
    with write_aside(path, owned=(META_NAME, "*.npy")) as folder:
        folder.mkdir()
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        write_json(folder / META_NAME, {"format_version": FORMAT_VERSION, **meta})


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
