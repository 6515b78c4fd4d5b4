"""A collection prepared for comparison: encoded once, with its queries by split."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sentence_transformers import SentenceTransformer

from ..candidates import LabelledQueries
from ..candidates.excluded import excluded_rows
from ..data import Collection
from ..embeddings import collection_fingerprint, encode, encoder_fingerprint
from ..evaluation import seen_queries
from ..indexes import WordIndex


class Queries(NamedTuple):
    """Queries with everything that a system may need.

    Args:
        ids: Ids of the queries, `n`.
        texts: Texts of the queries, `n`.
        embeddings: Embeddings of the queries, `(n, dim)`.
        positives: For each query, row numbers of its relevant documents.
        negatives: The same of documents that were judged and aren't relevant; None if none are known.
        excluded: The same of documents that are left out, as in `LabelledQueries`; None for none.
    """

    ids: list[str]
    texts: list[str]
    embeddings: np.ndarray
    positives: list[np.ndarray]
    negatives: list[np.ndarray] | None = None
    excluded: list[np.ndarray] | None = None

    def labelled(self, words: WordIndex) -> LabelledQueries:
        """Return the queries as fitting takes them, with counts of their words."""
        counts = words.count(self.texts)
        return LabelledQueries(self.embeddings, self.positives, counts, self.negatives, self.excluded)

    def select(self, rows: np.ndarray) -> Queries:
        """Return the queries at the given row numbers."""

        def of(column: list[Any] | None) -> Any:
            return None if column is None else [column[row] for row in rows]

        ids, texts, embeddings, *documents = self
        return Queries(of(ids), of(texts), embeddings[rows], *map(of, documents))


@dataclass(frozen=True, eq=False)
class Task:
    """A collection with the embeddings of its documents and queries.

    Args:
        name: Name of the collection in tables and folders.
        collection: The collection.
        documents: Embeddings of the documents, `(m, dim)`.
        training: Training queries.
        development: Queries of the split `dev`; None if there is no such split.
        test: Test queries.
        encoder: The encoder that the embeddings come from; None for embeddings from elsewhere. Methods that
            encode texts need it.
        encoder_name: Folder or Hub name of the encoder. Strategies that train the encoder need it.
        cache_dir: Folder of the embedding cache.
    """

    name: str
    collection: Collection
    documents: np.ndarray
    training: Queries
    development: Queries | None
    test: Queries
    encoder: SentenceTransformer | None = None
    encoder_name: str | None = None
    cache_dir: Path | None = None

    @cached_property
    def words(self) -> WordIndex:
        """The words of the documents."""
        return WordIndex.of(self.collection.document_texts)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that results on this collection depend on."""
        encoder = None if self.encoder is None else encoder_fingerprint(self.encoder)
        return {"encoder": encoder, **collection_fingerprint(self.collection)}

    @cached_property
    def seen(self) -> np.ndarray:
        """Which test queries share a relevant document with a training query, `(n,)` bool."""
        return seen_queries(self.test.positives, self.training.positives)


def prepare(
    collection: Collection,
    encoder: SentenceTransformer,
    *,
    encoder_name: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
) -> Task:
    """Encode a collection for comparison.

    Args:
        collection: A collection with the splits `train` and `test`, and optionally `dev`.
        encoder: The encoder.
        encoder_name: Its folder or Hub name. Strategies that train the encoder need it.
        cache_dir: Folder of the embedding cache.
        batch_size: Encoder batch size.

    Raises:
        ValueError: If a split is missing or has fewer than two queries with a relevant document.
    """

    def queries(split: str) -> Queries:
        part = collection.split(split)
        kept = [row for row, rows in enumerate(part.positive_rows) if len(rows)]
        if len(kept) < 2:
            raise ValueError(
                f"The split {split!r} of {collection.name} must have at least 2 queries with a relevant "
                f"document, it has {len(kept)}."
            )
        embeddings = encode(
            encoder, part.query_texts, task="query", cache_dir=cache_dir, batch_size=batch_size
        )
        documents = part.positive_rows, part.negative_rows, excluded_rows(part)
        everything = Queries(part.query_ids, list(part.query_texts), embeddings, *documents)
        return everything.select(np.array(kept))

    training, test = queries("train"), queries("test")
    return Task(
        name=collection.name,
        collection=collection,
        documents=encode(
            encoder, collection.document_texts, task="document", cache_dir=cache_dir, batch_size=batch_size
        ),
        training=training,
        development=queries("dev") if "dev" in collection.splits else None,
        test=test,
        encoder=encoder,
        encoder_name=encoder_name,
        cache_dir=None if cache_dir is None else Path(cache_dir),
    )


def labelled_collection(task: Task, positives: list[np.ndarray]) -> Collection:
    """Return a collection of the training queries with other labels.

    Args:
        task: The task.
        positives: For each training query, row numbers of the documents to label.
    """
    names = task.collection.document_ids
    qrels = {
        query: {names[row]: 1 for row in rows}
        for query, rows in zip(task.training.ids, positives, strict=True)
    }
    row_of = {name: row for row, name in enumerate(task.collection.query_ids)}
    queries = task.collection.queries.select([row_of[name] for name in task.training.ids])
    return replace(task.collection, queries=queries, qrels_by_split={"train": qrels})
