"""Documents from any source as a table: `id`, `title`, `text` and, if any have them, `metadata`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import pyarrow as pa
from datasets import Dataset

from ..data import Collection
from ..data.metadata import metadata_json
from ..data.surrogates import check_unicode

Corpus: TypeAlias = Collection | Dataset | Mapping[str, str | Mapping[str, Any]] | Sequence[str]

SCHEMA = pa.schema([(name, pa.large_string()) for name in ("id", "title", "text")])
METADATA: Final = "metadata"
METADATA_FIELD = pa.field(METADATA, pa.large_string())


def document_table(corpus: Corpus) -> pa.Table:
    """Return the documents of a corpus as a table of strings.

    Args:
        corpus: A collection; a `datasets.Dataset` with columns `id`, `text` and, if there are any, `title`
            and `metadata` (dictionaries or their JSON texts); a dictionary from id to text or to
            `{"title": ..., "text": ..., "metadata": {...}}`; or a list of texts, whose ids are their
            positions, `"0"`, `"1"`, ...

    Returns:
        Columns `id`, `title` (empty where there is none) and `text`; and `metadata`, JSON texts (empty where
        there are none), if there are any.

    Raises:
        ValueError: If the corpus is empty or of another type, lacks a column, or has a repeated id, an id or
            text that isn't a string or has a lone surrogate, a document with neither title nor text, or
            metadata that JSON can't hold.

    Example:
        >>> document_table({"d1": "Herring", "d2": {"title": "Cod", "text": "A fish."}}).to_pylist()[1]
        {'id': 'd2', 'title': 'Cod', 'text': 'A fish.'}
    """
    columns = _columns(corpus)
    metadata = _metadata(columns.pop(METADATA), columns["id"])
    columns["title"] = ["" if title is None else title for title in columns["title"]]
    if not columns["id"]:
        raise ValueError("corpus must have documents, got none.")
    for name, values in columns.items():
        for position, value in enumerate(values):
            if not isinstance(value, str):
                raise ValueError(
                    f"corpus must have strings as {name}, got {type(value).__name__} at position {position}."
                )
        check_unicode(f"corpus {name}", values)
    repeated = [document_id for document_id, count in Counter(columns["id"]).items() if count > 1]
    if repeated:
        raise ValueError(
            f"corpus must have unique ids, {len(repeated)} repeat, the first is {repeated[0]!r}."
        )
    table = pa.table(columns, schema=SCHEMA)
    for document_id, text in zip(columns["id"], document_texts(table), strict=True):
        if not text:
            raise ValueError(f"corpus must have texts, the document {document_id!r} has none.")
    return _with_metadata(table, metadata) if any(metadata) else table


def stack_tables(first: pa.Table, second: pa.Table) -> pa.Table:
    """Return documents and, below them, others."""
    if first.schema.equals(second.schema):
        return pa.concat_tables([first, second])
    both = (
        table if METADATA in table.column_names else _with_metadata(table, [""] * table.num_rows)
        for table in (first, second)
    )
    return pa.concat_tables(both)


def _with_metadata(table: pa.Table, metadata: list[str]) -> pa.Table:
    return table.append_column(METADATA_FIELD, pa.array(metadata, pa.large_string()))


def _metadata(values: Sequence[object], ids: Sequence[object]) -> list[str]:
    texts = []
    for document_id, value in zip(ids, values, strict=True):
        try:
            texts.append(metadata_json(value))
        except ValueError as error:
            raise ValueError(f"corpus must have JSON as metadata of {document_id!r:.80}: {error}") from error
    return texts


def document_texts(table: pa.Table) -> list[str]:
    """Return title and text of each document, joined by a space, like `Collection.document_texts`."""
    titles, texts = table["title"].to_pylist(), table["text"].to_pylist()
    return [f"{title} {text}".strip() for title, text in zip(titles, texts, strict=True)]


def _columns(corpus: Corpus) -> dict[str, list[Any]]:
    if isinstance(corpus, Collection):
        corpus = corpus.corpus
    if isinstance(corpus, Dataset):
        missing = sorted({"id", "text"} - set(corpus.column_names))
        if missing:
            raise ValueError(f"corpus must have the columns id and text, got {corpus.column_names}.")
        names = ("id", "title", "text", METADATA)
        return {
            name: corpus[name][:] if name in corpus.column_names else [""] * len(corpus) for name in names
        }
    if isinstance(corpus, Mapping):
        documents = [value if isinstance(value, Mapping) else {"text": value} for value in corpus.values()]
        return {
            "id": list(corpus),
            "title": [document.get("title") for document in documents],
            "text": [document.get("text", "") for document in documents],
            METADATA: [document.get(METADATA) for document in documents],
        }
    if isinstance(corpus, Sequence) and not isinstance(corpus, (str, bytes)):
        ids = [str(position) for position in range(len(corpus))]
        empty = [""] * len(corpus)
        return {"id": ids, "title": empty, "text": list(corpus), METADATA: empty}
    raise ValueError(
        "corpus must be a Collection, a Dataset, a dictionary from id to text or a list of texts, "
        f"got {type(corpus).__name__}."
    )
