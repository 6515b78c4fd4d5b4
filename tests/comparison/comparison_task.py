"""A task of random embeddings, at small size, that tests of the comparison share."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from rrra_hf.comparison import CompareArguments, Queries, Task, choose_methods, make_tables
from rrra_hf.data import Collection
from rrra_hf.fitting import ResidualFitArguments
from tiny import WORDS

FIT = ResidualFitArguments(max_steps=20, eval_steps=10, hidden_size=8, depth=20, batch_size=16)


QUICK = CompareArguments(seeds=2, fit=FIT, steps=5, batch_size=8, num_negatives=2, folds=2)


DIM, DOCUMENTS = 16, 120


def normalized(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def collection_of(qrels_by_split, documents, queries, name="made"):
    return Collection(
        name=name,
        corpus=Dataset.from_dict(
            {"id": list(documents), "title": [""] * len(documents), "text": list(documents.values())}
        ),
        queries=Dataset.from_dict({"id": list(queries), "text": list(queries.values())}),
        qrels_by_split=qrels_by_split,
    )


def make_task(name="made"):
    """Documents in clusters of four; a query has two of its cluster's for positives, one of grade 2."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(DOCUMENTS // 4, DIM))
    documents = normalized(np.repeat(centres, 4, axis=0) + 0.5 * rng.normal(size=(DOCUMENTS, DIM)))
    turn = np.diag(np.where(np.arange(DIM) < 4, -1.0, 1.0))
    texts = {f"d{i}": " ".join(rng.choice(WORDS, 6)) for i in range(DOCUMENTS)}

    def queries(split, count):
        clusters = rng.integers(0, len(centres), size=count)
        firsts = 4 * clusters + rng.integers(0, 3, size=count)
        positives = [np.array([row, row + 1]) for row in firsts]
        embeddings = normalized(documents[firsts] @ turn + 0.2 * rng.normal(size=(count, DIM)))
        ids = [f"{split}{i}" for i in range(count)]
        # The words of a document in another order: a query that is a document isn't mined as its negative.
        asked = [" ".join(reversed(texts[f"d{row}"].split())) for row in firsts]
        return Queries(ids, asked, embeddings, positives)

    training, test = queries("train", 80), queries("test", 40)
    qrels = {
        split: {
            query: {f"d{rows[0]}": 2, f"d{rows[1]}": 1}
            for query, rows in zip(part.ids, part.positives, strict=True)
        }
        for split, part in (("train", training), ("test", test))
    }
    names = dict(zip(training.ids + test.ids, training.texts + test.texts, strict=True))
    return Task(name, collection_of(qrels, texts, names, name), documents, training, None, test)


def systems(*names):
    return choose_methods("systems", names, QUICK)


def report_of(cells):
    return {
        "command": "rrra compare made --out <here>",
        "machine": {"python": "3"},
        "settings": {"encoder": "none", "max_length": 8, **QUICK.settings(["seeds", "fit"])},
        "other_code": [],
        "tables": make_tables(cells),
    }
