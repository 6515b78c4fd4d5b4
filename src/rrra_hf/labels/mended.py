"""A collection with labels added: what was decided, and what is probable enough."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data import Collection
from ..data.collection import Qrels
from ..data.trec import write_qrels
from ..models.files_rrra import write_aside
from .audit import Audit
from .review.decisions import ADAPTER, Decision
from .review.recalibration import decided, located, recalibrate

logger = logging.getLogger(__name__)

COLLECTION_NAME, TREC_NAME = "collection", "qrels.trec"
TRAINING_NAME, CHANGES_NAME = "training.jsonl", "changes.jsonl"


class Mended(NamedTuple):
    """A collection with new labels.

    Args:
        collection: The collection. Its labels are those of the original, and the new ones.
        split: The split whose labels are new.
        changes: The new labels, with who gave them and the probability: grade 1 where relevant, else 0.
    """

    collection: Collection
    split: str
    changes: list[Decision]

    def diff(self) -> str:
        """Return one line for each who gave labels, such as `person: 12 relevant, 30 not relevant`.

        Example:
            >>> nothing = Mended.__new__(Mended, None, "train", [Decision("q", "d", True, "person", 0.5)])
            >>> nothing.diff()
            'person: 1 relevant, 0 not relevant'
        """
        counts = Counter((change.by, change.relevant) for change in self.changes)
        givers = sorted({by for by, _ in counts})
        lines = [f"{by}: {counts[by, True]:,} relevant, {counts[by, False]:,} not relevant" for by in givers]
        return "\n".join(lines) or "no new labels"

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the collection, and its labels in other formats, to a new folder.

        `collection/` is a BEIR folder. `qrels.trec` has the labels of the split for trec_eval, and
        `training.jsonl` has them with texts for FlagEmbedding. `changes.jsonl` has the new labels, as
        `Decisions` reads them.

        Args:
            folder: The folder, new or empty.

        Raises:
            FileExistsError: If the folder holds anything: nothing is overwritten.
            ValueError: If an id can't be written to a BEIR folder. If one can't be written for trec_eval, the
                log says so, and `qrels.trec` is left out.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} exists and is not an empty folder; nothing is overwritten.")
        part = self.collection.split(self.split)
        with write_aside(folder) as new:
            new.mkdir()
            self.collection.save(new / COLLECTION_NAME)
            try:
                write_qrels(new / TREC_NAME, part.qrels)
            except ValueError as error:
                logger.warning("%s is not written: %s", TREC_NAME, error)
            part.save_flag_embedding(new / TRAINING_NAME)
            lines = (json.dumps(asdict(change)) + "\n" for change in self.changes)
            (new / CHANGES_NAME).write_text("".join(lines), encoding="utf-8")


def mend(audit: Audit, accept_from: float | None = None) -> Mended:
    """Return the audited collection with new labels.

    Pairs that persons and judges decided get a label: grade 1, or 0 where the document isn't relevant. The
    original collection stays as it is.

    Args:
        audit: The audit.
        accept_from: Undecided pairs with at least this probability become relevant, too, given by the
            adapter. None accepts none.

    Returns:
        The collection, its changes, and a line that counts them.

    Raises:
        ValueError: If `accept_from` isn't in (0, 1].

    Example:
        ::

            found = audit(load_collection("my-collection"), encoder)
            mended = mend(found, accept_from=0.9)
            print(mended.diff())
            mended.save("my-collection-mended")
    """
    if accept_from is not None and not 0 < accept_from <= 1:
        raise ValueError(f"accept_from must be in (0, 1], got {accept_from}.")
    changes = [decision for _, _, decision in located(audit.pool, audit.decisions) if decision.by != ADAPTER]
    changes += _accepted(audit, accept_from or np.inf)
    qrels: Qrels = {query: dict(grades) for query, grades in audit.collection.qrels.items()}
    new = []
    for change in changes:
        grade = int(change.relevant)
        if qrels[change.query_id].get(change.document_id) != grade:
            qrels[change.query_id][change.document_id] = grade
            new.append(change)
    by_split = {**audit.whole.qrels_by_split, audit.split: qrels}
    return Mended(replace(audit.whole, qrels_by_split=by_split), audit.split, new)


def _accepted(audit: Audit, least: float) -> list[Decision]:
    """Return what the adapter decides by itself."""
    pool = recalibrate(audit.pool, audit.decisions)[0]
    assert pool.probability is not None
    open_pairs = np.isnan(decided(pool, audit.decisions)[0])
    with np.errstate(invalid="ignore"):
        rows, places = np.nonzero(open_pairs & (pool.probability >= least))
    documents = pool.candidates[rows, places]
    chances = pool.probability[rows, places].tolist()
    return [
        Decision(pool.query_ids[row], pool.document_ids[document], True, ADAPTER, p)
        for row, document, p in zip(rows, documents, chances, strict=True)
    ]
