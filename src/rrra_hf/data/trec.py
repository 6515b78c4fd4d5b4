"""Judgements and runs in the formats of TREC and BEIR."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ..models.files_rrra import write_aside
from .collection import QRELS_HEADER
from .problems import Location, Problems, Record, brief
from .tsv import read_tsv_rows

Run = dict[str, list[dict[str, Any]]]
"""Hits per query id, best first, as `Retriever.search` returns them: `{"corpus_id": ..., "score": ...}`."""

HEADERS = ("query-id", "qid", "query")
RUN_COLUMNS = 6
SPLIT_NAMES = ("train", "validation", "dev", "test")


def read_qrels(path: Path, problems: Problems) -> Iterator[tuple[Location, Record]]:
    """Yield the judgements of a file of BEIR, with three columns, or of TREC, with four.

    The columns of BEIR are query id, document id and grade, separated by tabs. TREC has a column before the
    document id that says nothing, and any space between columns.

    Raises:
        ValueError: If the file is a run, or a line has another number of columns and `problems` raises.
    """
    trec: bool | None = None
    for location, row in read_tsv_rows(path, problems):
        if location.number == 1 and _is_header(row):
            continue
        if trec is None:
            trec = _is_trec(location, row)
        fields = _fields(row) if trec else row
        if len(fields) == len(QRELS_HEADER) + trec:
            yield location, dict(zip(QRELS_HEADER, (fields[0], *fields[-2:]), strict=True))
            continue
        expected = "4 (query id, 0, document id, grade)" if trec else f"3 ({', '.join(QRELS_HEADER)})"
        problems.report(
            location, "malformed line", f"{len(fields)} fields, expected {expected}: {brief(row)}"
        )


def split_of(path: Path) -> str:
    """Return the split that the name of a file of judgements tells, by default "train".

    Example:
        >>> split_of(Path("qrels.dev.tsv")), split_of(Path("qrels.txt"))
        ('dev', 'train')
    """
    words = path.name.lower().replace("-", ".").replace("_", ".").split(".")
    return next((name for name in SPLIT_NAMES if name in words), "train")


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read a run of TREC: query id, `Q0`, document id, rank, score, name of the run.

    Args:
        path: The file. It may be compressed, `.gz` or `.zst`.

    Returns:
        Hits per query, highest score first; equal scores by rank.

    Raises:
        ValueError: If a line isn't one of a run. The message names it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "bm25.run"
        >>> write_run(path, {"q1": [{"corpus_id": "d1", "score": 2.5}]})
        >>> read_run(path)
        {'q1': [{'corpus_id': 'd1', 'score': 2.5}]}
    """
    found: dict[str, list[tuple[float, int, str]]] = {}
    for location, row in read_tsv_rows(Path(path), Problems()):
        fields = _fields(row)
        try:
            query_id, _, document_id, rank, score, _ = fields
            found.setdefault(query_id, []).append((-float(score), int(rank), document_id))
        except ValueError as error:
            raise ValueError(
                f"{location}: a run has six columns (query id, Q0, document id, rank, score, name), got "
                f"{brief(fields)}."
            ) from error
    return {
        query_id: [{"corpus_id": name, "score": -score} for score, _, name in sorted(hits)]
        for query_id, hits in found.items()
    }


def write_run(
    path: str | os.PathLike[str], results: Mapping[str, Sequence[Mapping[str, Any]]], name: str = "rrra"
) -> None:
    """Write hits as a run of TREC.

    Args:
        path: The file.
        results: Hits per query id, best first.
        name: Name of the run, its last column.

    Raises:
        ValueError: If an id or the name is empty or has a space, which separates columns.
    """
    _check_words(chain([name], results, (str(hit["corpus_id"]) for hits in results.values() for hit in hits)))
    with write_aside(Path(path)) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for query_id, hits in results.items():
            for rank, hit in enumerate(hits, start=1):
                file.write(f"{query_id} Q0 {hit['corpus_id']} {rank} {float(hit['score'])!r} {name}\n")


def write_qrels(path: str | os.PathLike[str], qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write judgements for trec_eval: query id, 0, document id, grade.

    Args:
        path: The file.
        qrels: Grades per query id and document id.

    Raises:
        ValueError: If an id is empty or has a space, which separates columns.
    """
    _check_words(chain(qrels, (name for grades in qrels.values() for name in grades)))
    with write_aside(Path(path)) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for query_id, grades in qrels.items():
            file.writelines(f"{query_id} 0 {name} {grade}\n" for name, grade in grades.items())


def _check_words(names: Iterable[str]) -> None:
    for name in names:
        if len(name.split()) != 1 or name != name.strip():
            raise ValueError(f"ids and names in files of TREC must have no spaces, got {name!r:.80}.")


def _fields(row: list[str]) -> list[str]:
    return " ".join(row).split()


def _is_header(row: list[str]) -> bool:
    return row[0].lower().replace("_", "-") in HEADERS


def _is_trec(location: Location, row: list[str]) -> bool:
    columns = len(_fields(row))
    if len(row) != len(QRELS_HEADER) and columns == RUN_COLUMNS:
        raise ValueError(f"{location}: six columns are those of a run, whose hits were not judged.")
    return len(row) != len(QRELS_HEADER) and columns == len(QRELS_HEADER) + 1
