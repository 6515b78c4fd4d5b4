"""Validation of records, shared by all sources of collections."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset, Features, Value

from .blocks import Block
from .collection import Collection, Qrels, has_relevant, is_split_name
from .columns import document_columns
from .metadata import metadata_json
from .problems import Location, Problems, Record, brief
from .surrogates import lone_surrogate
from .texts import Texts

logger = logging.getLogger(__name__)

COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("_id", "id", "docid", "pid"),
    "title": ("title",),
    "text": ("text", "page_content", "contents"),
    "metadata": ("metadata",),
    "query": ("query", "anchor", "question", "sentence1"),
    "document_id": ("document_id",),
    "document": ("document", "positive", "answer", "passage", "sentence2", "pos"),
    "negative": ("negative", "neg"),
    "label": ("label", "score"),
    "query-id": ("query-id",),
    "corpus-id": ("corpus-id",),
    "score": ("score",),
    "split": ("split",),
}
"""Roles of columns, and their usual names."""

MAX_GRADE = 2**31 - 1


class CollectionBuilder:
    """Validates records and builds a collection.

    Add documents and queries first, then judgements.

    Args:
        name: Name of the collection.
        problems: Handles bad records.
        columns: Column name per role, if it differs from the usual names.
    """

    def __init__(self, name: str, problems: Problems, columns: Mapping[str, str] | None = None):
        self.name = name
        self.problems = problems
        self.named = set(columns or {})
        named = dict(columns or {})
        # A column that the caller names has no other role.
        usual = {
            role: tuple(name for name in names if name not in named.values())
            for role, names in COLUMNS.items()
        }
        self.columns = {**usual, **{role: (column,) for role, column in named.items()}}
        if len(self.columns) > len(COLUMNS):
            unknown = sorted(set(self.columns) - set(COLUMNS))
            raise ValueError(f"columns must have keys among {list(COLUMNS)}, got {unknown}.")
        self.documents = Texts("title", "text", "metadata")
        self.queries: dict[str, str] = {}
        self.qrels_by_split: dict[str, Qrels] = {}
        self.siblings: dict[str, list[str]] = {}
        self._usual = not named
        self._query_places: dict[str, Location] = {}
        self._given = {"documents"}
        self._same_texts = 0

    @property
    def names(self) -> set[str]:
        """All names of columns that have a role."""
        return {name for names in self.columns.values() for name in names}

    def has_column(self, record: Record, role: str) -> bool:
        """Return whether a record has a value in the column with this role."""
        return any(record.get(column) not in (None, "") for column in self.columns[role])

    def get(self, location: Location, record: Record, role: str) -> str | None:
        """Return the text of the column with this role, or report the problem and return None."""
        for column in self.columns[role]:
            if column in record:
                return self.text(location, column, record[column])
        names = " or ".join(repr(column) for column in self.columns[role])
        message = f"no column {names}; there are {brief(list(record))}"
        self.problems.report(location, "missing column", message)
        return None

    def metadata(self, location: Location, record: Record) -> str | None:
        """Return the metadata of a document as JSON text, or report what JSON can't hold and return None."""
        column = next((column for column in self.columns["metadata"] if column in record), None)
        try:
            return "" if column is None else metadata_json(record[column])
        except ValueError as error:
            self.problems.report(location, "malformed line", str(error))
            return None

    def text(self, location: Location, column: str, value: Any) -> str | None:
        """Return a value as text, or report that it isn't one and return None."""
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is None:
            return ""
        if not isinstance(value, str):
            message = f"column {column!r} holds {type(value).__name__} {brief(value)}, not text"
            self.problems.report(location, "malformed line", message)
            return None
        position = lone_surrogate(value)
        if position is None:
            return value
        message = f"column {column!r} has a lone surrogate at character {position + 1}"
        self.problems.report(location, "undecodable bytes", message)
        return None

    def add_documents(self, blocks: Iterable[Block]) -> None:
        """Add documents with a column text, and optionally id and title. Title or text must not be empty.

        If the first document has no id, those without one get it by their content; others with the same
        content are the same document.
        """
        has_ids = None
        for block in blocks:
            if has_ids and self._add_columns(block):
                continue
            for location, record in block.records:
                if has_ids is None:
                    has_ids = self._has_ids(record)
                if not (has_ids and self._add_plain(location, record)):
                    self._add_record(location, record, has_ids)

    def _add_columns(self, block: Block) -> bool:
        """Add the documents of a block at once, or return False if one of them may be bad."""
        columns = block.columns()
        if columns is None:
            return False
        first, table = columns
        documents = document_columns(table, self.columns)
        return documents is not None and self.documents.add_columns(first, documents)

    def _add_record(self, location: Location, record: Record, has_ids: bool) -> None:
        text = self.get(location, record, "text")
        title = self.get(location, record, "title") if self.has_column(record, "title") else ""
        metadata = self.metadata(location, record)
        if text is None or title is None or metadata is None:
            return
        if has_ids or self.has_column(record, "id"):
            document_id = self.get(location, record, "id")
            if document_id is not None:
                self.add_document(location, document_id, title, text, metadata)
            return
        document_id = content_id(f"{title}\n{text}" if title else text)
        if document_id in self.documents:
            self._same_texts += 1
        else:
            self.add_document(location, document_id, title, text, metadata)

    def _add_plain(self, location: Location, record: Record) -> bool:
        """Add a document of ASCII texts in the usual columns, in a third of the time, or return False."""
        document_id, title, text = record.get("_id"), record.get("title", ""), record.get("text")
        if not (isinstance(document_id, str) and isinstance(title, str) and isinstance(text, str)):
            return False
        plain = document_id.isascii() and title.isascii() and text.isascii()
        if not plain or not self._usual or document_id in self.documents or record.get("metadata"):
            return False
        if not document_id.strip() or not (text.strip() or title.strip()):
            return False
        self.documents.add(location, document_id, title, text, "")
        return True

    def _has_ids(self, record: Record) -> bool:
        """Whether the documents of a source have ids, as its first says; those of LangChain may have some."""
        return "page_content" not in record and any(name in record for name in self.columns["id"])

    def add_document(
        self, location: Location, document_id: str, title: str, text: str, metadata: str = ""
    ) -> None:
        """Add one document. Title or text must not be empty. Metadata are JSON text."""
        first = self.documents.place(document_id) if document_id in self.documents else None
        if self._is_legal(location, "document", document_id, title + text, first):
            self.documents.add(location, document_id, title, text, metadata)

    def add_queries(self, records: Iterable[tuple[Location, Record]]) -> None:
        """Add queries with columns id and text."""
        self._given.add("queries")
        for location, record in records:
            query_id, text = self.get(location, record, "id"), self.get(location, record, "text")
            if query_id is None or text is None:
                continue
            if self._is_legal(location, "query", query_id, text, self._query_places.get(query_id)):
                self.queries[query_id] = text
                self._query_places[query_id] = location

    def _is_legal(
        self, location: Location, kind: str, identifier: str, text: str, first: Location | None
    ) -> bool:
        """Report an id or a text that is empty, and an id that occurred before, at `first`."""
        problem = None
        if not text.strip():
            problem = "empty text", f"{kind} {brief(identifier)} has no text"
        elif not identifier.strip():
            problem = "empty id", f"the {kind} has an empty id"
        elif first is not None:
            problem = "duplicate id", f"{kind} id {brief(identifier)} already occurs at {first}"
        if problem is not None:
            self.problems.report(location, *problem)
        return problem is None

    def add_judgements(self, split: str, records: Iterable[tuple[Location, Record]]) -> None:
        """Add judgements of a split with columns query-id, corpus-id and score (an integer grade)."""
        self.need_labels()
        for location, record in records:
            query_id = self.get(location, record, "query-id")
            document_id = self.get(location, record, "corpus-id")
            if query_id is not None and document_id is not None:
                self.add_judgement(
                    location, split, query_id, document_id, record.get(self.columns["score"][0])
                )

    def need_labels(self) -> None:
        """Make `build` raise if no query or no relevant document was found."""
        self._given |= {"queries", "relevant documents (qrels)"}

    def add_judgement(
        self, location: Location, split: str, query_id: str, document_id: str, grade: Any
    ) -> None:
        """Add one judgement. A grade of 0 or less means that the document is known not to be relevant."""
        value = _integer(grade)
        if value is None:
            message = f"the grade (score) of query {brief(query_id)} must be an integer, got {brief(grade)}"
            self.problems.report(location, "malformed line", message)
        elif abs(value) > MAX_GRADE:
            message = f"the grade (score) of query {brief(query_id)} must be at most {MAX_GRADE}"
            self.problems.report(location, "malformed line", message)
        elif not is_split_name(split):
            message = f"the split must be a name without slashes that can name a file, got {brief(split)}"
            self.problems.report(location, "malformed line", message)
        elif query_id not in self.queries:
            message = f"query {brief(query_id)} is not among the queries"
            self.problems.report(location, "unknown query", message)
        elif document_id not in self.documents:
            message = f"document {brief(document_id)} is not in the corpus"
            self.problems.report(location, "unknown document", message)
        else:
            grades = self.qrels_by_split.setdefault(split, {}).setdefault(query_id, {})
            before = grades.setdefault(document_id, value)
            if before != value:
                message = (
                    f"query {brief(query_id)} and document {brief(document_id)} have the grade {value} here "
                    f"and {before} before"
                )
                self.problems.report(location, "contradicting grades", message)

    def add_siblings(self, location: Location, content: bytes) -> None:
        """Add siblings from a JSON object that maps document ids to lists of document ids."""
        try:
            siblings = json.loads(content)
        except (ValueError, RecursionError) as error:
            self.problems.report(location, "malformed line", f"not JSON ({error})")
            return
        if not isinstance(siblings, dict) or not all(map(_is_list_of_texts, siblings.values())):
            self.problems.report(location, "malformed line", "siblings must map ids to lists of ids")
            return
        for document_id, sibling_ids in siblings.items():
            for unknown in sorted(
                {name for name in (document_id, *sibling_ids) if name not in self.documents}
            ):
                message = f"document {brief(unknown)} is not in the corpus"
                self.problems.report(location, "unknown document", message)
            known = [sibling_id for sibling_id in sibling_ids if sibling_id in self.documents]
            if document_id in self.documents and known:
                self.siblings[document_id] = known

    def build(self) -> Collection:
        """Build the collection.

        Raises:
            ValueError: If there are no documents; or none of the queries and judgements that a source had is
                left.
        """
        if self._same_texts:
            logger.warning("%s: %s documents repeat the text of another.", self.name, f"{self._same_texts:,}")
        skipped = dict(self.problems.skipped)
        if skipped:
            logger.warning("%s: skipped bad records: %s.", self.name, skipped)
        for what, found in (
            ("documents", self.documents),
            ("queries", self.queries),
            ("relevant documents (qrels)", any(map(has_relevant, self._all_grades()))),
        ):
            if what in self._given and not found:
                because = f"; skipped: {skipped}" if skipped else ""
                raise ValueError(f"{self.name} has no {what}{because}.")
        if "validation" in self.qrels_by_split and "dev" not in self.qrels_by_split:
            self.qrels_by_split["dev"] = self.qrels_by_split.pop("validation")
        return Collection(
            name=self.name,
            corpus=_without_empty(self.documents.dataset(), "metadata"),
            queries=_dataset(id=self.queries, text=self.queries.values()),
            qrels_by_split=self.qrels_by_split,
            siblings=self.siblings,
            skipped=skipped,
        )

    def _all_grades(self) -> Iterator[dict[str, int]]:
        return (grades for qrels in self.qrels_by_split.values() for grades in qrels.values())


def _dataset(**columns: Iterable[str]) -> Dataset:
    features = Features({name: Value("string") for name in columns})
    return Dataset.from_dict({name: list(values) for name, values in columns.items()}, features=features)


def _without_empty(documents: Dataset, column: str) -> Dataset:
    """Return documents without a column in which all have an empty text."""
    texts = documents.data.column(column)
    return documents if pc.any(pc.not_equal(texts, "")).as_py() else documents.remove_columns(column)


def content_id(text: str) -> str:
    """Return the id of a text that has none: it stays the same when other texts are added.

    Example:
        >>> content_id("A fish.")
        '94c96f6ab861a9f1'
    """
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _integer(grade: Any) -> int | None:
    """Return the grade as an integer, also for `"2"`, `2.0` and `"2.0"`, or None if it isn't one."""
    # For Python, `True` and "1_0" are numbers.
    if isinstance(grade, bool) or (isinstance(grade, str) and "_" in grade):
        return None
    try:
        value = float(grade)
    except (OverflowError, TypeError, ValueError):
        return None
    return int(value) if value.is_integer() else None
