"""Collections as datasets of sentence-transformers, and as JSONL of FlagEmbedding."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..models.files_rrra import write_aside

logger = logging.getLogger(__name__)


Judged = list[tuple[str, list[str], list[str]]]
"""Texts of each judged query, of its relevant documents, and of those that aren't relevant."""


def to_dataset(judged: Judged, kind: str) -> Dataset:
    """Return labels as a dataset, see `Collection.to_dataset`."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
    rows = list(KINDS[kind](judged))
    if not rows:
        raise ValueError(f"There are no labels for {kind}: {len(judged)} queries have labels.")
    return Dataset.from_list(rows)


def write_flag_embedding(path: str | os.PathLike[str], judged: Judged) -> None:
    """Write labels as JSONL of FlagEmbedding, see `Collection.save_flag_embedding`."""
    _log_left_out(sum(not positives for _, positives, _ in judged), "have no relevant document")
    write_jsonl(path, ({"query": q, "pos": pos, "neg": neg} for q, pos, neg in judged if pos))


def write_jsonl(path: str | os.PathLike[str], records: Iterable[Mapping[str, Any]]) -> None:
    """Write a record per line, the whole file or none."""
    with write_aside(Path(path)) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _pairs(judged: Judged) -> Iterator[dict[str, Any]]:
    return ({"anchor": q, "positive": text} for q, positives, _ in judged for text in positives)


def _triplets(judged: Judged) -> Iterator[dict[str, Any]]:
    for query, positives, negatives in _with_both(judged):
        for positive in positives:
            yield from ({"anchor": query, "positive": positive, "negative": text} for text in negatives)


def _n_tuples(judged: Judged) -> Iterator[dict[str, Any]]:
    found = _with_both(judged)
    count = min((len(negatives) for _, _, negatives in found), default=0)
    cut = sum(len(negatives) > count for _, _, negatives in found)
    if cut:
        logger.warning(
            "%d queries have more than %d known negatives; the others are left out.", *(cut, count)
        )
    for query, positives, negatives in found:
        columns = {f"negative_{number}": text for number, text in enumerate(negatives[:count], 1)}
        yield from ({"anchor": query, "positive": positive, **columns} for positive in positives)


def _labelled_pairs(judged: Judged) -> Iterator[dict[str, Any]]:
    for query, positives, negatives in judged:
        for label, texts in ((1, positives), (0, negatives)):
            yield from ({"sentence1": query, "sentence2": text, "label": label} for text in texts)


def _with_both(judged: Judged) -> Judged:
    """Return the queries with known negatives beside relevant documents."""
    found = [entry for entry in judged if entry[1] and entry[2]]
    _log_left_out(len(judged) - len(found), "have no known negative, or no relevant document")
    return found


def _log_left_out(count: int, why: str) -> None:
    if count:
        logger.warning("%d queries are left out: they %s.", count, why)


KINDS: dict[str, Callable[[Judged], Iterator[dict[str, Any]]]] = {
    "pairs": _pairs,
    "triplets": _triplets,
    "n-tuple": _n_tuples,
    "labelled-pairs": _labelled_pairs,
}
