"""Save embeddings as Arrow files and read them memory-mapped."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from ..models.files_rrra import write_aside


def save_embeddings(
    path: str | os.PathLike[str], embeddings: np.ndarray, text_hashes: np.ndarray | None = None
) -> None:
    """Write embeddings to an Arrow IPC file with a column `embedding: fixed_size_list<float>`.

    The file is written under a temporary name and renamed, so a partial file is never left.

    Args:
        path: Path of the file. An existing file is replaced.
        embeddings: `(n, dim)`, stored as float32.
        text_hashes: Hashes of the texts, see `text_hashes`, `(n,)`, stored in a column `text_hash`.

    Raises:
        ValueError: If `embeddings` isn't a matrix.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "embeddings.arrow"
        >>> save_embeddings(path, np.eye(3, 2))
        >>> load_embeddings(path).shape
        (3, 2)
    """
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        raise ValueError(f"embeddings must have shape (n, dim), got {embeddings.shape}.")
    columns = {"embedding": np.asarray(embeddings, dtype=np.float32)}
    if text_hashes is not None:
        columns["text_hash"] = text_hashes
    save_columns(path, columns)


def load_embeddings(path: str | os.PathLike[str]) -> np.ndarray:
    """Open a file written by `save_embeddings`, memory-mapped.

    Args:
        path: Path of the file.

    Returns:
        `(n, dim)` float32, read-only. Pages are read from disk on access.

    Raises:
        FileNotFoundError: If the file doesn't exist.
        ValueError: If the file is damaged or has no embeddings.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"No embeddings at {path}.")
    try:
        embeddings = load_columns(path)["embedding"]
        if embeddings.ndim != 2 or embeddings.dtype != np.float32:
            raise ValueError(f"its column has type {embeddings.dtype}")
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged or has no embeddings: {error}") from error
    return embeddings


def scratch_matrix(file: IO[bytes], rows: int, dim: int) -> np.ndarray:
    """Return a float32 matrix in a temporary file, for one that may not fit in memory.

    Args:
        file: The file, empty and open for reading and writing.
        rows: Number of rows.
        dim: Number of columns.

    Raises:
        OSError: If the disk has no room for it. Without this check, the system would kill the process later.

    Example:
        >>> import tempfile
        >>> scratch_matrix(tempfile.TemporaryFile(), 3, 2).shape
        (3, 2)
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, rows * dim * 4)
    return np.memmap(file, np.float32, "w+", shape=(rows, dim))


def save_columns(path: str | os.PathLike[str], columns: dict[str, np.ndarray]) -> None:
    """Write arrays of equal length to an Arrow IPC file, with their checksums. A partial file is never left.

    Args:
        path: Path of the file. An existing file is replaced.
        columns: Arrays by name: numbers, `(n, width)`, or bytes of fixed length, `(n,)`, dtype `S`.
    """
    # Arrays are contiguous in the file only if there is a single batch.
    arrays = {name: np.ascontiguousarray(array) for name, array in columns.items()}
    checksums = {name: _checksum(array) for name, array in arrays.items()}
    batch = pa.record_batch(
        [_column(array) for array in arrays.values()], names=list(arrays), metadata=checksums
    )
    with write_aside(path) as temporary, pa.ipc.new_file(str(temporary), batch.schema) as writer:
        writer.write_batch(batch)


def load_columns(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Open a file written by `save_columns`, memory-mapped.

    Args:
        path: Path of the file.

    Returns:
        The arrays by name, read-only.

    Raises:
        FileNotFoundError: If the file doesn't exist.
        ValueError: If the file is damaged or has columns of other types.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"No file at {path}.")
    try:
        with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
            if reader.num_record_batches != 1:
                raise ValueError(f"it has {reader.num_record_batches} batches, not one")
            batch = reader.get_batch(0)
        batch.validate(full=True)
        arrays = {name: _array(batch.column(name)) for name in batch.schema.names}
        _check_checksums(arrays, batch.schema.metadata or {})
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return arrays


def _check_checksums(arrays: dict[str, np.ndarray], checksums: dict[bytes, bytes]) -> None:
    for name, array in arrays.items():
        # Files that were written before there were checksums have none.
        expected = checksums.get(name.encode())
        if expected is not None and expected != _checksum(array):
            raise ValueError(f"its column {name} has another checksum than when it was written")


def _checksum(array: np.ndarray) -> bytes:
    return f"{zlib.crc32(array.data.cast('B') if array.size else b''):08x}".encode()


def _column(array: np.ndarray) -> pa.Array:
    if array.dtype.kind == "S":
        buffers = [None, pa.py_buffer(array)]
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(array.itemsize), len(array), buffers)
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])


def _array(column: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_binary(column.type):
        dtype = f"S{column.type.byte_width}"
        return np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * column.type.byte_width)
    if not pa.types.is_fixed_size_list(column.type) or not pa.types.is_primitive(column.type.value_type):
        raise ValueError(f"its column has type {column.type}")
    return column.values.to_numpy(zero_copy_only=True).reshape(len(column), column.type.list_size)
