"""The BEIR folder layout: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .builder import CollectionBuilder
from .collection import CORPUS_NAME, QRELS_HEADER, QRELS_NAME, QUERIES_NAME, SIBLINGS_NAME, Collection
from .readers import Location, Problems, Record, read_records, read_rows


def read_beir(folder: Path, *, name: str | None = None, skip_bad: bool = False) -> Collection:
    """Read and check a BEIR folder; `siblings.json`, as `Collection.save` writes it, is read too.

    Args:
        folder: The folder. Qrels may have a header line or not.
        name: Name of the collection; the folder's if not given.
        skip_bad: Drop and count bad records instead of raising.

    Raises:
        FileNotFoundError: If a part of the layout is missing.
        ValueError: If a record is bad; the message names file, line and what was found.
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
    for location, row in read_rows(path, "\t", problems):
        if location.number == 1 and row[0].lower().replace("_", "-") in ("query-id", "qid", "query"):
            continue
        if len(row) == len(QRELS_HEADER):
            yield location, dict(zip(QRELS_HEADER, row, strict=True))
        else:
            message = f"{len(row)} fields, expected 3 ({', '.join(QRELS_HEADER)}): {row}"
            problems.report(location, "malformed line", message)
