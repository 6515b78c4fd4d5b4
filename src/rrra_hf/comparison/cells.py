"""Results on disk: one cell for each table, collection, method and seed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ..models.files_rrra import write_aside, write_json
from ..training.run_folder import differences

FORMAT_VERSION = 1


class Cell(NamedTuple):
    """One method on one collection with one seed.

    Args:
        table: Name of the table it belongs to.
        collection: Name of the collection.
        method: Name of the method.
        seed: Seed.
    """

    table: str
    collection: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Path of the cell below the folder of all cells, without suffix."""
        # Collections are named after folders or repositories, so their names may contain slashes.
        collection = re.sub(r"[^\w.-]", "_", self.collection)
        return f"{collection}/{self.table}/{self.method}/seed-{self.seed}"


class Result(NamedTuple):
    """The result of running a method.

    Args:
        figures: Figures of the whole run by name: numbers, or lists of numbers for plots.
        rows: The data behind the figures, one row per query or per candidate.
        seconds: Seconds of fitting.
        milliseconds: Milliseconds per query; None if nothing is ranked.
    """

    figures: dict[str, Any]
    rows: pa.Table
    seconds: float
    milliseconds: float | None = None


class CellStore:
    """Finished cells in a folder: `<collection>/<table>/<method>/seed-<seed>.json` and `.parquet`.

    A cell records a digest of the package's code. A cell from another state of the code is reused, because
    any changed comment changes the digest. It is listed in `other_code`, and reports mention it.

    Args:
        folder: Folder of the cells; created if it doesn't exist.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self.code = _code_digest()
        self.other_code: list[Cell] = []

    def load(self, cell: Cell, settings: dict[str, Any]) -> Result | None:
        """Return the result of a finished cell, or None.

        Args:
            cell: The cell.
            settings: Everything that its result depends on, as a JSON object.

        Raises:
            ValueError: If the cell is damaged, or was made with other settings; the message names them.
        """
        path = self._path(cell, "json")
        if not path.exists():
            return None
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
            result = Result(meta["figures"], meta["rows"], meta["seconds"], meta["milliseconds"])
            before, version = meta["settings"], meta["format_version"]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {error}. Delete it to run it again.") from error
        if version != FORMAT_VERSION:
            raise ValueError(f"{path} has format version {version}, this package reads {FORMAT_VERSION}.")
        if meta.get("code") != self.code:
            self.other_code.append(cell)
        _check_same(before, json.loads(json.dumps(settings)), path)
        return result._replace(rows=self._read_rows(cell, result.rows))

    def _read_rows(self, cell: Cell, count: int) -> pa.Table:
        path = self._path(cell, "parquet")
        try:
            rows = pq.read_table(path)
            if rows.num_rows != count:
                raise ValueError(f"it has {rows.num_rows} rows, not {count}")
        except (OSError, ValueError, pa.ArrowException) as error:
            again = self._path(cell, "json")
            raise ValueError(
                f"{path} is missing or damaged: {error}. Delete {again} to run it again."
            ) from error
        return rows

    def save(self, cell: Cell, settings: dict[str, Any], result: Result) -> None:
        """Write the result of a cell. The JSON file is written last and marks the cell as finished."""
        with write_aside(self._path(cell, "parquet")) as temporary:
            pq.write_table(result.rows, temporary)
        meta = {
            "format_version": FORMAT_VERSION,
            **cell._asdict(),
            "code": self.code,
            "settings": settings,
            "figures": result.figures,
            "seconds": result.seconds,
            "milliseconds": result.milliseconds,
            "rows": result.rows.num_rows,
        }
        write_json(self._path(cell, "json"), meta)

    def _path(self, cell: Cell, ending: str) -> Path:
        return self.folder / f"{cell.name}.{ending}"


def _code_digest() -> str:
    """Return a digest of the package's source files and weights, except those of the command line."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.safetensors")]):
        if "cli" not in path.relative_to(package).parts:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _check_same(before: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    differing = differences(before, now)
    if differing:
        raise ValueError(
            f"{path} was made with other settings: {', '.join(differing)}. "
            "Give another folder, or delete the file to run it again."
        )
