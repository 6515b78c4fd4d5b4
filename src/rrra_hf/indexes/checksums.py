"""Checksums of the files of a folder, kept in the JSON file that describes it."""

from __future__ import annotations

import zlib
from pathlib import Path

from ..models.files_rrra import read_json

ENTRY = "files"
BLOCK_SIZE = 2**20


def checksums(folder: Path) -> dict[str, str]:
    """Return the CRC-32 of each file in a folder and in the folders below, by name.

    Links are left out.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "note.txt").write_text("whole")
        >>> checksums(folder)
        {'note.txt': 'c459294f'}
    """
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): _checksum(path) for path in files}


def check_files(meta: Path) -> None:
    """Compare the files beside a JSON file with the checksums in it.

    Files in folders below are not compared: what reads them does that. Metadata that were written before
    there were checksums have none, and pass.

    Args:
        meta: The JSON file, whose entry `files` is what `checksums` returned.

    Raises:
        ValueError: If a file is missing or has other contents, or the metadata are damaged; the message names
            the file.
    """
    expected = read_json(meta, dict).get(ENTRY, {})
    if not isinstance(expected, dict):
        raise ValueError(f"{meta} is damaged: {ENTRY} must hold checksums by name.")
    for name, checksum in expected.items():
        path = meta.parent / name
        if path.name != name:
            continue
        if not path.is_file():
            raise ValueError(f"{path} is missing or damaged.")
        if checksum != _checksum(path):
            raise ValueError(f"{path} is damaged: it isn't the file that was saved.")


def _checksum(path: Path) -> str:
    value = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_SIZE):
            value = zlib.crc32(block, value)
    return f"{value:08x}"
