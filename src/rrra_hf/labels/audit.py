"""The audit of a collection's labels: which are probably missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sentence_transformers import SentenceTransformer

from ..candidates import CandidatePool, mine
from ..candidates.indexed import Indexed, with_documents
from ..data import Collection
from ..embeddings import texts_fingerprint
from ..models.files_rrra import read_json, write_aside, write_json
from .missing import Missing, missing_labels
from .review.decisions import Decisions
from .review.page import most_probable, write_page
from .review.pair_texts import Suspect
from .review.recalibration import recalibrate

DEPTH = 100
AUDIT_NAME, PAIRS_NAME, PAGE_NAME = "audit.json", "pairs.parquet", "index.html"
POOL_NAME, DECISIONS_NAME = "pool", "decisions.jsonl"
# Queries whose pairs are written at a time.
BLOCK = 1024


@dataclass
class Audit:
    """Candidates of a split's queries, how probably each is a missing label, and what was decided.

    Args:
        whole: The collection.
        split: The split that was audited.
        pool: Candidates of its queries, with their probabilities.
        decisions: Decisions about candidates.
        settings: How the candidates were found, for those who read the saved audit.

    Example:
        >>> from rrra_hf import load_collection
        >>> collection = load_collection([{"query": "what swims", "answer": "A fish."}])
        >>> pool = CandidatePool(
        ...     query_ids=collection.query_ids, document_ids=collection.document_ids,
        ...     positives=[np.array([], int)], candidates=np.array([[0]]), scores=np.array([[0.5]]),
        ...     probability=np.array([[0.75]]),
        ... )
        >>> found = Audit(collection, "train", pool)
        >>> round(found.missing().expected, 2), found.suspects(1)[0].document
        (0.75, 'A fish.')
    """

    whole: Collection
    split: str
    pool: CandidatePool
    decisions: Decisions = field(default_factory=Decisions)
    settings: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def collection(self) -> Collection:
        """The split."""
        return self.whole.split(self.split)

    def missing(self) -> Missing:
        """Return how many labels are probably missing."""
        return missing_labels(self.pool, self.decisions)

    def suspects(self, count: int = 20) -> list[Suspect]:
        """Return the most probable pairs that aren't decided, with their texts.

        Args:
            count: Number of pairs at most.
        """
        return most_probable(self.collection, self.pool, self.decisions, count)

    def counts(self) -> list[tuple[str, str]]:
        """Return what a person wants to know first: names and values."""
        missing = self.missing()
        labels = sum(map(len, self.pool.positives))
        between = f"between {missing.low:,.0f} and {missing.high:,.0f} with a chance of 80 %"
        counts = [
            ("Queries", f"{len(self.pool):,}"),
            ("Labels", f"{labels:,}"),
            ("Candidates", f"{int((self.pool.candidates >= 0).sum()):,}"),
            ("Labels that are probably missing", f"{missing.expected:,.0f}, {between}"),
        ]
        for first, last, expected in missing.by_depth:
            counts.append((f"of them among candidates {first} to {last}", f"{expected:,.0f}"))
        if missing.decisions:
            counts.append(("Decisions that this follows", f"{missing.decisions:,}"))
        return counts

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the audit to a folder, except its decisions, which have a file of their own.

        `pairs.parquet` has a row for each pair: `query_id`, `document_id`, `rank`, `score` (the cosine), and
        `probability`. `index.html` shows the most probable pairs and needs no server. `pool/` is the pool,
        and `audit.json` has the numbers.

        Args:
            folder: The folder. Other files in it are kept.
        """
        folder = Path(folder)
        self.pool.save(folder / POOL_NAME)
        self.save_report(folder)

    def save_report(self, folder: str | os.PathLike[str]) -> None:
        """Write what follows the decisions: all that `save` writes but the pool.

        Args:
            folder: The folder, which holds the pool.
        """
        folder = Path(folder)
        with write_aside(folder, keep_others=True) as new:
            new.mkdir(parents=True, exist_ok=True)
            self._write_pairs(new / PAIRS_NAME)
            write_page(new / PAGE_NAME, self.collection, self.pool, self.decisions, self.counts())
            write_json(new / AUDIT_NAME, self.summary())

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the audit, for JSON."""
        missing = self.missing()
        depths = [
            {"first": first, "last": last, "expected": expected} for first, last, expected in missing.by_depth
        ]
        return {
            "collection": self.whole.name,
            "split": self.split,
            "settings": self.settings,
            "queries": len(self.pool),
            "labels": sum(map(len, self.pool.positives)),
            "candidates": int((self.pool.candidates >= 0).sum()),
            "missing": {**missing._asdict(), "by_depth": depths},
        }

    @classmethod
    def load(cls, folder: str | os.PathLike[str], whole: Collection, index: Indexed | None = None) -> Audit:
        """Read a saved audit with its decisions.

        Args:
            folder: The folder.
            whole: The collection that was audited.
            index: The retriever with an index, if it was audited with one.

        Raises:
            FileNotFoundError: If there is no audit.
            ValueError: If a file is damaged, or the audit is of another collection.
        """
        folder = Path(folder)
        summary = read_json(folder / AUDIT_NAME)
        split, settings = summary.get("split"), summary.get("settings")
        if not isinstance(split, str) or not isinstance(settings, dict):
            raise ValueError(f"{folder / AUDIT_NAME} is damaged: it has no split or no settings.")
        pool = CandidatePool.load(folder / POOL_NAME)
        if index is not None:
            whole = with_documents(whole, index, pool)
        part = whole.split(split)
        same = {
            "corpus": texts_fingerprint(part.document_texts),
            "queries": texts_fingerprint(part.query_texts),
        }
        if pool.query_ids != part.query_ids or any(
            pool.fingerprint.get(name) != value for name, value in same.items()
        ):
            raise ValueError(f"{folder} is the audit of another collection than {whole.name}.")
        return cls(whole, split, pool, Decisions.read(folder / DECISIONS_NAME), settings)

    def _write_pairs(self, path: Path) -> None:
        with pq.ParquetWriter(path, PAIRS) as writer:
            for table in self._pairs():
                writer.write_table(table)

    def _pairs(self) -> Iterator[pa.Table]:
        pool = recalibrate(self.pool, self.decisions)[0]
        assert pool.probability is not None
        queries, documents = pa.array(pool.query_ids, pa.string()), pa.array(pool.document_ids, pa.string())
        for start in range(0, len(pool), BLOCK):
            block = slice(start, start + BLOCK)
            row, place = np.nonzero(pool.candidates[block] >= 0)
            columns = [
                queries.take(pa.array(row + start)),
                documents.take(pa.array(pool.candidates[block][row, place])),
                pa.array((place + 1).astype(np.int32)),
                pa.array(pool.scores[block][row, place]),
                pa.array(pool.probability[block][row, place]),
            ]
            yield pa.table(columns, schema=PAIRS)


PAIRS = pa.schema(
    {
        "query_id": pa.string(),
        "document_id": pa.string(),
        "rank": pa.int32(),
        "score": pa.float32(),
        "probability": pa.float32(),
    }
)


def audit(
    collection: Collection,
    encoder: SentenceTransformer | None = None,
    *,
    index: Indexed | None = None,
    split: str = "train",
    depth: int = DEPTH,
    **options: Any,
) -> Audit:
    """Find the labels that are probably missing in a split of a collection.

    Candidates of each query are found by embeddings and by words. The adapter that comes trained estimates
    how probably each is relevant, and where the labelled documents stand among them tells how many there
    are. This supposes that any relevant document may have been the one that was labelled. If people labelled
    what a search engine showed first, more labels are missing than this says.

    Args:
        collection: The collection.
        encoder: The encoder; not given with an index, which has one.
        index: A retriever with an index, whose documents are searched, wherever they are. What it finds and
            the collection doesn't have, the audited collection has behind its own documents.
        split: Split whose labels are audited.
        depth: Number of candidates per query.
        **options: `cache_dir`, `batch_size`, `show_progress_bar`, `exclude_self` and `folder`, as for `mine`.

    Returns:
        The audit.

    Raises:
        ValueError: As for `mine`.

    Example:
        >>> from rrra_hf import load_collection
        >>> collection = load_collection("my-collection")  # doctest: +SKIP
        >>> found = audit(collection, SentenceTransformer("all-MiniLM-L6-v2"))  # doctest: +SKIP
        >>> found.save("audits/my-collection")  # doctest: +SKIP
    """
    pool = mine(collection, encoder, depth, index=index, split=split, **options)
    if index is not None:
        collection = with_documents(collection, index, pool)
        pool.fingerprint["corpus"] = texts_fingerprint(collection.document_texts)
    return Audit(collection, split, pool)
