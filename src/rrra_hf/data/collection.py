"""The `Collection` class: documents, queries and relevance judgements."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ..models.files_rrra import write_aside
from .export import Judged, to_dataset, write_flag_embedding, write_jsonl
from .metadata import parse_metadata

Qrels = dict[str, dict[str, int]]
"""Relevance judgements: a grade, an integer, per query id and document id.

A document with a grade above 0 is relevant. One with a grade of 0 or less was judged, and isn't.
"""

CORPUS_NAME = "corpus.jsonl"
QUERIES_NAME = "queries.jsonl"
QRELS_NAME = "qrels"
QRELS_HEADER = ("query-id", "corpus-id", "score")
SIBLINGS_NAME = "siblings.json"
# Names of files have at most 255 bytes.
MAX_SPLIT_BYTES = 200


@dataclass(frozen=True, eq=False, repr=False)
class Collection:
    """Documents, queries and relevance judgements (qrels) by split.

    `load_collection` loads and validates a collection. A collection that you create yourself isn't validated.

    Args:
        name: Name for tables and logs.
        corpus: Documents, with string columns `id`, `title` and `text`, and `metadata` (the JSON text of a
            dictionary, or empty) if any have them.
        queries: Queries, with string columns `id` and `text`.
        qrels_by_split: Qrels per split.
        siblings: Known siblings per document id: documents that are likely relevant to the same queries, but
            not labelled.
        skipped: Number of records skipped on load, per reason.

    Example:
        >>> collection = Collection(
        ...     name="tiny",
        ...     corpus=Dataset.from_dict({"id": ["d1"], "title": ["Herring"], "text": ["A fish."]}),
        ...     queries=Dataset.from_dict({"id": ["q1"], "text": ["what is a herring"]}),
        ...     qrels_by_split={"train": {"q1": {"d1": 1}}},
        ... )
        >>> collection.document_texts
        ['Herring A fish.']
        >>> collection.split("train").qrels
        {'q1': {'d1': 1}}
    """

    name: str
    corpus: Dataset
    queries: Dataset
    qrels_by_split: dict[str, Qrels]
    siblings: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = [f"{self.name!r}", f"{len(self.corpus):,} documents", f"{len(self.queries):,} queries"]
        for split, qrels in self.qrels_by_split.items():
            grades = [grade for judged in qrels.values() for grade in judged.values()]
            relevant = sum(grade > 0 for grade in grades)
            judged = f"{split}: {len(qrels):,} queries, {relevant:,} relevant"
            known = len(grades) - relevant
            counts.append(f"{judged}, {known:,} not relevant" if known else judged)
        if self.skipped:
            counts.append(f"skipped: {self.skipped}")
        return f"Collection({'; '.join(counts)})"

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self.qrels_by_split)

    @cached_property
    def qrels(self) -> Qrels:
        """Qrels of all splits together."""
        merged: Qrels = {}
        for qrels in self.qrels_by_split.values():
            for query_id, grades in qrels.items():
                merged.setdefault(query_id, {}).update(grades)
        return merged

    @cached_property
    def document_ids(self) -> list[str]:
        """Document ids, in the order of the corpus."""
        return self.corpus["id"][:]

    @cached_property
    def document_texts(self) -> list[str]:
        """Title and text of each document, joined by a space, as the encoder reads them."""
        # Slices: a column that is iterated is read row by row.
        titles, texts = self.corpus["title"][:], self.corpus["text"][:]
        return [f"{title} {text}".strip() for title, text in zip(titles, texts, strict=True)]

    @cached_property
    def query_ids(self) -> list[str]:
        """Query ids, in the order of the queries."""
        return self.queries["id"][:]

    @cached_property
    def query_texts(self) -> list[str]:
        """Query texts, in the order of the queries."""
        return self.queries["text"][:]

    @cached_property
    def positive_rows(self) -> list[np.ndarray]:
        """Row numbers of the relevant documents per query; empty for queries without labels."""
        return self._judged_rows(relevant=True)

    @cached_property
    def negative_rows(self) -> list[np.ndarray]:
        """Row numbers per query of the documents that were judged and aren't relevant."""
        return self._judged_rows(relevant=False)

    def _judged_rows(self, relevant: bool) -> list[np.ndarray]:
        judged = [
            [name for name, grade in self.qrels.get(query_id, {}).items() if (grade > 0) is relevant]
            for query_id in self.query_ids
        ]
        names = list(chain.from_iterable(judged))
        # Without a dictionary of all documents, of which few are judged.
        ids = self.corpus.select_columns("id").with_format("arrow")[:]["id"]
        rows = pc.index_in(pa.array(names, ids.type), value_set=ids)
        if rows.null_count:
            name = names[rows.is_null().index(True).as_py()]
            raise ValueError(f"{self.name} has a judgement of {name!r:.80}, which is not in the corpus.")
        return np.split(rows.to_numpy().astype(int), np.cumsum([len(names) for names in judged]))[:-1]

    def split(self, name: str) -> Collection:
        """Return one split: the whole corpus, and the queries with judgements in the split.

        Queries whose judged documents are all not relevant are left out.

        Args:
            name: Name of the split. "validation" is "dev".

        Raises:
            ValueError: If the split doesn't exist, or has no relevant document.
        """
        if name == "validation" and name not in self.splits:
            name = "dev"
        if name not in self.qrels_by_split:
            there = f"there are {self.splits}" if self.splits else "it has no labels"
            raise ValueError(f"{self.name} has no split {name!r}; {there}.")
        judged = self.qrels_by_split[name]
        qrels = {name: grades for name, grades in judged.items() if not grades or has_relevant(grades)}
        if judged and not qrels:
            raise ValueError(f"The split {name!r} of {self.name} has no relevant document.")
        rows = [row for row, query_id in enumerate(self.query_ids) if query_id in qrels]
        return replace(self, queries=self.queries.select(rows), qrels_by_split={name: qrels})

    def to_dataset(self, kind: str = "pairs") -> Dataset:
        """Return the labels as a dataset for the trainer and the losses of sentence-transformers.

        Args:
            kind: "pairs": columns anchor and positive. "triplets": anchor, positive, negative, for each
                relevant document and each that is known not to be. "n-tuple": anchor, positive, negative_1
                and so on, as many as every query has. "labelled-pairs": sentence1, sentence2, and label, 1 or
                0. `load_collection` reads them all.

        Raises:
            ValueError: If there is no such kind, or no labels for it.

        Example:
            >>> from rrra_hf import load_collection
            >>> load_collection([{"query": "what swims", "answer": "A fish."}]).to_dataset("pairs")[0]
            {'anchor': 'what swims', 'positive': 'A fish.'}
        """
        return to_dataset(self._judged_texts(), kind)

    def save_flag_embedding(self, path: str | os.PathLike[str]) -> None:
        """Write the labels as JSONL of FlagEmbedding: `{"query", "pos", "neg"}`.

        Queries without a relevant document are left out; the log counts them.

        Args:
            path: The file. `load_collection` reads it.
        """
        write_flag_embedding(path, self._judged_texts())

    def _judged_texts(self) -> Judged:
        texts = self.document_texts
        queries = zip(self.query_texts, self.positive_rows, self.negative_rows, strict=True)
        return [
            (query, [texts[row] for row in positives], [texts[row] for row in negatives])
            for query, positives, negatives in queries
            if len(positives) or len(negatives)
        ]

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write the collection as a BEIR folder.

        The folder has `corpus.jsonl` and, if there are any, `queries.jsonl`, `qrels/<split>.tsv` and
        `siblings.json`. If writing fails, no partial folder is left. `load_collection` reads the folder.

        Args:
            directory: Folder to create. It may exist if it is empty.

        Raises:
            FileExistsError: If the folder isn't empty.
            ValueError: If the name of a split can't name a file, or an id of a judgement has a tab or a line
                break, which no field of a TSV file can hold.
        """
        directory = Path(directory)
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise FileExistsError(f"{directory} exists and is not an empty folder.")
        unfit = [name for name in self.splits if not is_split_name(name)]
        if unfit:
            raise ValueError(f"splits must have names that can name files, got {unfit[0]!r:.80}.")
        for name in (name for judged in self.qrels.items() for name in (judged[0], *judged[1])):
            if set(name) & set("\t\n"):
                raise ValueError(f"ids of judgements must have no tabs and line breaks, got {name!r:.80}.")
        with write_aside(directory) as temporary:
            temporary.mkdir()
            self._write(temporary)

    def _write(self, directory: Path) -> None:
        write_jsonl(directory / CORPUS_NAME, map(_record, self.corpus))
        # A part that isn't there is not a part without records.
        if len(self.queries):
            queries = zip(self.query_ids, self.query_texts, strict=True)
            write_jsonl(directory / QUERIES_NAME, ({"_id": i, "text": x} for i, x in queries))
        if self.qrels_by_split:
            (directory / QRELS_NAME).mkdir()
        for split, qrels in self.qrels_by_split.items():
            _write_qrels(directory / QRELS_NAME / f"{split}.tsv", qrels)
        if self.siblings:
            text = json.dumps(self.siblings, ensure_ascii=False, indent=0)
            (directory / SIBLINGS_NAME).write_text(text + "\n", encoding="utf-8")


def _record(document: dict[str, str]) -> dict[str, Any]:
    record = {"_id": document["id"], "title": document["title"], "text": document["text"]}
    metadata = document.get("metadata")
    return {**record, "metadata": parse_metadata(metadata)} if metadata else record


def has_relevant(grades: dict[str, int]) -> bool:
    """Whether one of the judgements of a query has a grade above 0."""
    return any(grade > 0 for grade in grades.values())


def is_split_name(name: str) -> bool:
    """Whether the judgements of a split of this name can be written to a file in the folder of judgements."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= MAX_SPLIT_BYTES and not set(name) & set("/\\\0") and name not in (".", "..")


def _write_qrels(path: Path, qrels: Qrels) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(QRELS_HEADER) + "\n")
        for query_id, grades in qrels.items():
            file.writelines(f"{query_id}\t{document_id}\t{grade}\n" for document_id, grade in grades.items())
