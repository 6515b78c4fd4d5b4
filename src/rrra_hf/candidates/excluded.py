"""Documents that are neither relevant to a query nor not: the query itself, and copies of labelled ones."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..data import Collection

logger = logging.getLogger(__name__)


def excluded_rows(collection: Collection, exclude_self: bool = True) -> list[np.ndarray]:
    """Return the rows of the documents to leave out for each query, ascending, without the labelled ones.

    Args:
        collection: The collection.
        exclude_self: Leave out documents that are the query, not only those with the text of a labelled one:
            documents with its id, or with its text but for case and spaces. Collections of duplicate
            questions and of citations have them.
    """
    positives = collection.positive_rows
    copies = rows_of_same_text(collection.document_texts, positives)
    own: list[list[int]] = [[]] * len(positives)
    if exclude_self:
        queries = zip(collection.query_ids, collection.query_texts, strict=True)
        own = own_rows(queries, collection.document_ids, collection.document_texts)
    count = sum(map(bool, own))
    if count:
        logger.info(
            "%s: %d of %d queries are documents themselves, by id or text. These are left out for them; "
            "exclude_self=False keeps them.",
            *(collection.name, count, len(own)),
        )
    return without_labelled(copies, own, positives)


def without_labelled(
    copies: list[list[int]], own: list[list[int]], positives: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Return the rows that are in one of two lists per query, ascending, and aren't labelled."""
    excluded = (
        {*same, *mine}.difference(labelled.tolist())
        for same, mine, labelled in zip(copies, own, positives, strict=True)
    )
    return [np.array(sorted(rows), dtype=np.int64) for rows in excluded]


def rows_of_same_text(texts: Sequence[str], positives: Sequence[np.ndarray]) -> list[list[int]]:
    """Return the rows of all documents with the same text as a positive, per query."""
    rows_of = defaultdict(list)
    for row, text in enumerate(texts):
        rows_of[text].append(row)
    distinct = [{texts[row] for row in rows} for rows in positives]
    return [[row for text in found for row in rows_of[text]] for found in distinct]


def own_rows(queries: Iterable[tuple[str, str]], ids: Sequence[str], texts: Sequence[str]) -> list[list[int]]:
    """Return the rows of the documents that are the query itself, per query.

    Args:
        queries: Ids and texts of the queries.
        ids: Ids of the documents.
        texts: Texts of the documents.
    """
    rows_by_id = {name: [row] for row, name in enumerate(ids)}
    rows_of = defaultdict(list)
    for row, text in enumerate(texts):
        rows_of[_normal(text)].append(row)
    return [rows_of.get(_normal(text), []) + rows_by_id.get(name, []) for name, text in queries]


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
