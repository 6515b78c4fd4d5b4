"""Results on disk, a cell for each table, collection, method and seed, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ..embeddings.storage import atomic_path
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
        """Where it is kept, below the folder of all cells and without the ending."""
        # Names of collections are those of folders or repositories, which may hold slashes.
        collection = re.sub(r"[^\w.-]", "_", self.collection)
        return f"{collection}/{self.table}/{self.method}/seed-{self.seed}"


class Result(NamedTuple):
    """What a method's run gave.

    Args:
        figures: Name to number, of the whole run; or to a list of numbers, for plots.
        rows: What the figures can be recomputed from: a row a query, or a candidate.
        seconds: Seconds of fitting.
        milliseconds: Milliseconds a query; None where nothing is ranked.
    """

    figures: dict[str, Any]
    rows: pa.Table
    seconds: float
    milliseconds: float | None = None


class CellStore:
    """Finished cells in a folder: `<collection>/<table>/<method>/seed-<seed>.json` and `.parquet`.

    A cell records a digest of the package's code. Cells that other code made are taken as they are, for a
    changed comment changes the digest too, but they are named in `other_code`, and reports say so.

    Args:
        folder: Made if it isn't there.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self.code = _code_digest()
        self.other_code: list[Cell] = []

    def load(self, cell: Cell, settings: dict[str, Any]) -> Result | None:
        """Return the result of a finished cell, or None.

        Args:
            cell: The cell.
            settings: Everything that decides its result, as a JSON object.

        Raises:
            ValueError: If it was made with other settings, which the message names, or is damaged.
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
        """Write the result of a cell; the JSON file comes last, and makes it finished."""
        with atomic_path(self._path(cell, "parquet")) as temporary:
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
        with atomic_path(self._path(cell, "json")) as temporary:
            temporary.write_text(json.dumps(meta, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def _path(self, cell: Cell, ending: str) -> Path:
        return self.folder / f"{cell.name}.{ending}"


def _code_digest() -> str:
    """Return a digest of this package's source files, but for the command line's."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
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
