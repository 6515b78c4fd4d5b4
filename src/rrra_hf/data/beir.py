"""Read BEIR folders: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .builder import CollectionBuilder
from .collection import CORPUS_NAME, QRELS_HEADER, QRELS_NAME, QUERIES_NAME, SIBLINGS_NAME, Collection
from .problems import Location, Problems, Record, brief
from .readers import read_records, read_tsv_rows


def read_beir(folder: Path, *, name: str | None = None, skip_bad: bool = False) -> Collection:
    """Read and validate a BEIR folder, including `siblings.json` if `Collection.save` wrote one.

    Args:
        folder: The folder. The header line of qrels is optional.
        name: Name of the collection, by default the name of the folder.
        skip_bad: Skip and count bad records instead of raising.

    Raises:
        FileNotFoundError: If a file of the layout is missing.
        ValueError: If a record is bad. The message has the file, the line and the problem.
    """
    for part in (CORPUS_NAME, QUERIES_NAME):
        if not (folder / part).is_file():
            raise FileNotFoundError(f"{folder} has no {part}.")
    qrels_paths = sorted((folder / QRELS_NAME).glob("*.tsv"))
    if not qrels_paths:
        raise FileNotFoundError(f"{folder} has no {QRELS_NAME}/<split>.tsv.")
    problems = Problems(skip_bad)
    builder = CollectionBuilder(name or folder.resolve().name, problems)
    builder.add_documents(read_records(folder / CORPUS_NAME, problems))
    builder.add_queries(read_records(folder / QUERIES_NAME, problems))
    for path in qrels_paths:
        builder.add_judgements(path.stem, _read_qrels(path, problems))
    siblings = folder / SIBLINGS_NAME
    if siblings.exists():
        builder.add_siblings(Location(str(siblings), 1), siblings.read_bytes())
    return builder.build()


def _read_qrels(path: Path, problems: Problems) -> Iterator[tuple[Location, Record]]:
    for location, row in read_tsv_rows(path, problems):
        if location.number == 1 and row[0].lower().replace("_", "-") in ("query-id", "qid", "query"):
            continue
        if len(row) == len(QRELS_HEADER):
            yield location, dict(zip(QRELS_HEADER, row, strict=True))
        else:
            message = f"{len(row)} fields, expected 3 ({', '.join(QRELS_HEADER)}): {brief(row)}"
            problems.report(location, "malformed line", message)
