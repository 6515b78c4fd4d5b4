"""Pairs, triplets and labelled pairs: queries with documents that are relevant to them, or are not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from .builder import CollectionBuilder, content_id
from .problems import Location, Record, brief

DEFAULT_SPLIT = "train"


def add_pairs(
    records: Iterable[tuple[Location, Record]],
    builder: CollectionBuilder,
    *,
    split: str = DEFAULT_SPLIT,
    alone: bool = False,
) -> None:
    """Add a query per distinct query text, and judgements of its documents.

    A record has a query, and a document by text or id, or a list of documents. It may have documents that
    aren't relevant, in columns such as `negative` and `negative_2`; a label, 0 or less if the document isn't
    relevant; and a split.

    Args:
        records: The records.
        builder: Gets the queries and judgements.
        split: Split of records that don't name one.
        alone: The documents are those of the records. Otherwise, the builder must have them.
    """
    builder.need_labels()
    pairs = _Pairs(builder, alone)
    for location, record in records:
        query = builder.get(location, record, "query")
        if query is None:
            continue
        if not query.strip():
            builder.problems.report(location, "empty text", "the query has no text")
            continue
        named = builder.get(location, record, "split") if builder.has_column(record, "split") else None
        # Documents first: a query without any isn't one.
        judged = list(pairs.judged(location, record))
        query_id = content_id(query)
        if judged:
            builder.queries[query_id] = query
        for document_id, grade in judged:
            builder.add_judgement(location, named or split, query_id, document_id, grade)


class _Pairs:
    """Finds the documents that the records name, or adds them."""

    def __init__(self, builder: CollectionBuilder, alone: bool):
        self.builder, self.alone = builder, alone
        self.ids_by_text: dict[str, list[str]] = {}
        for document_id, title, text, _ in builder.documents:
            for key in {text, f"{title} {text}".strip()}:
                self.ids_by_text.setdefault(key, []).append(document_id)
        self.negatives = [re.compile(rf"{re.escape(name)}(_?\d+)?") for name in builder.columns["negative"]]

    def judged(self, location: Location, record: Record) -> Iterator[tuple[str, Any]]:
        """Yield the id and the grade of each document of a record."""
        grade = 1
        label = next((name for name in self.builder.columns["label"] if name in record), None)
        if label is not None:
            grade = record[label]
        for document_id in self._relevant(location, record):
            yield document_id, grade
        for name, value in record.items():
            if value is not None and any(pattern.fullmatch(name) for pattern in self.negatives):
                for document_id in self._by_text(location, name, value):
                    yield document_id, 0

    def _relevant(self, location: Location, record: Record) -> Iterator[str]:
        columns = self.builder.columns["document"]
        column = next((name for name in columns if record.get(name) not in (None, "")), None)
        if column is None and self.alone:
            column = next((name for name in columns if name in record), None)
        if column is not None:
            yield from self._by_text(location, column, record[column])
            return
        document_id = self.builder.get(location, record, "document_id")
        if document_id is None:
            return
        if document_id in self.builder.documents:
            yield document_id
        else:
            message = f"document {brief(document_id)} is not in the corpus"
            self.builder.problems.report(location, "unknown document", message)

    def _by_text(self, location: Location, column: str, value: Any) -> Iterator[str]:
        for item in value if isinstance(value, list) else [value]:
            text = self.builder.text(location, column, item)
            if text is None:
                continue
            found = self._added(location, text) if self.alone else self.ids_by_text.get(text, [])
            if not found and not self.alone:
                message = f"no document of the corpus has the text {brief(text)}"
                self.builder.problems.report(location, "unknown document", message)
            yield from found

    def _added(self, location: Location, text: str) -> list[str]:
        document_id = content_id(text)
        if document_id not in self.builder.documents:
            self.builder.add_document(location, document_id, "", text)
        return [document_id] if document_id in self.builder.documents else []
