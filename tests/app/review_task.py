"""A small collection to review, and a process that reviews it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from rrra_hf.app.reviewing import Review
from rrra_hf.candidates import CandidatePool
from rrra_hf.data import Collection
from rrra_hf.labels.review.decisions import Decisions

# Code that would run if it were treated as HTML, or as JavaScript or Handlebars in Gradio's templates.
HOSTILE = (
    "<script>window.harmed = 1</script><img src='x' onerror='window.harmed = 2'>"
    "${window.harmed = 3} {{value}} </p></section></article> files"
)


def task(probability: Any, text: str = "copy files") -> tuple[Collection, CandidatePool]:
    """A collection whose queries have all documents but the last as candidates, and that as positive."""
    p = np.asarray(probability)
    n, k = p.shape
    documents = [f"{text} number {place}" for place in range(k)] + ["move a file"]
    collection = Collection(
        name="<b>tiny</b>",
        corpus=Dataset.from_dict(
            {"id": [f"d{i}" for i in range(k + 1)], "title": ["Text:"] * (k + 1), "text": documents}
        ),
        queries=Dataset.from_dict(
            {"id": [f"q{i}" for i in range(n)], "text": [f"file {i}" for i in range(n)]}
        ),
        qrels_by_split={"test": {f"q{i}": {f"d{k}": 1} for i in range(n)}},
    )
    pool = CandidatePool(
        query_ids=collection.query_ids,
        document_ids=collection.document_ids,
        positives=[np.array([k])] * n,
        candidates=np.tile(np.arange(k), (n, 1)),
        scores=np.full((n, k), 0.5),
        probability=p,
    )
    return collection, pool


def review_and_tell(path: Path, told: Path) -> None:
    """Review pairs, undo some, and tell of each decision when it is saved."""
    collection, pool = task([[0.3] * 40] * 50)
    with Decisions.open(path) as decisions, told.open("ab", buffering=0) as file:
        review = Review(collection, pool, decisions)
        for number in range(10**9):
            suspect = review.suspect()
            if suspect is None:
                return
            review.decide(review.shown, relevant=number % 3 == 0)
            if number % 7 == 6:
                review.undo()
            else:
                file.write(f"{suspect.query_id} {suspect.document_id} {number % 3 == 0}\n".encode())
