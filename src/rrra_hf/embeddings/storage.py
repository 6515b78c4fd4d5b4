"""Files: written whole or not at all, and embeddings as one Arrow file that is read without copying."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` if the block succeeds.

    Args:
        path: The file to write. Folders on the way to it are made.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with atomic_path(path) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> path.read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_meta(path: Path, format_version: int, names: Sequence[str]) -> dict[str, Any]:
    """Read the JSON file that describes a folder of several files.

    Args:
        path: The file.
        format_version: What its `format_version` must be.
        names: The entries to return.

    Raises:
        ValueError: If it is missing, damaged, of another version, or lacks an entry.
    """
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        if meta["format_version"] != format_version:
            raise ValueError(
                f"format version {meta['format_version']!r}, this package reads {format_version}"
            )
        return {name: meta[name] for name in names}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is missing or damaged: {error}") from error


def save_embeddings(path: str | os.PathLike[str], embeddings: np.ndarray) -> None:
    """Write embeddings to an Arrow IPC file with one column, `embedding: fixed_size_list<float>`.

    The file is written under a temporary name and renamed, so it is complete or not there.

    Args:
        path: The file; replaced if it is there.
        embeddings: `(n, dim)`, stored as float32.

    Raises:
        ValueError: If `embeddings` is not a matrix.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "embeddings.arrow"
        >>> save_embeddings(path, np.eye(3, 2))
        >>> load_embeddings(path).shape
        (3, 2)
    """
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        raise ValueError(f"embeddings must have shape (n, dim), got {embeddings.shape}.")
    values = np.ascontiguousarray(embeddings, dtype=np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    # One batch, because only then is the matrix contiguous in the file.
    batch = pa.record_batch([column], names=["embedding"])
    with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), batch.schema) as writer:
        writer.write_batch(batch)


def load_embeddings(path: str | os.PathLike[str]) -> np.ndarray:
    """Open a file that `save_embeddings` wrote, memory-mapped.

    Args:
        path: The file.

    Returns:
        `(n, dim)` float32, read-only; pages are read from disk when they are used.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it is damaged or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No embeddings at {path}.")
    try:
        with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
            batch = reader.get_batch(0)
        batch.validate(full=True)
        column = batch.column("embedding")
        if not pa.types.is_fixed_size_list(column.type) or column.type.value_type != pa.float32():
            raise ValueError(f"its column has type {column.type}")
        values = column.values.to_numpy(zero_copy_only=True)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged or holds no embeddings: {error}") from error
    return values.reshape(len(column), column.type.list_size)
