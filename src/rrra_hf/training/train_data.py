"""The data that the stages train on: splits of the queries, and pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from datasets import Dataset

from ..candidates.labelled import pair_rows
from ..data import Collection


def with_development(collection: Collection, fraction: float, seed: int) -> Collection:
    """Return the collection with the splits `train` and `dev`.

    Args:
        collection: The collection.
        fraction: Share of the training queries to hold out if there is no split `dev`.
        seed: Random seed of that choice.

    Raises:
        ValueError: If there is no split `train`, or it has fewer than three queries.
    """
    splits = {"train": collection.split("train").qrels}
    if "dev" in collection.splits:
        splits["dev"] = collection.split("dev").qrels
    if len(splits["train"]) < 3:
        raise ValueError(
            f"Training needs at least three queries, {collection.name} has {len(splits['train'])}."
        )
    if not splits.get("dev"):
        names = list(splits["train"])
        count = min(max(1, round(len(names) * fraction)), len(names) - 2)
        held_out = {
            names[row] for row in np.random.default_rng(seed).choice(len(names), count, replace=False)
        }
        splits = {
            "train": {name: grades for name, grades in splits["train"].items() if name not in held_out},
            "dev": {name: grades for name, grades in splits["train"].items() if name in held_out},
        }
    return replace(collection, qrels_by_split=splits)


def pair_dataset(collection: Collection) -> Dataset:
    """Return a dataset of the columns `query` and `positive`, with a row for every labelled pair.

    It stores rows of the collection, and looks up the texts when it is read.
    """
    queries, documents = list(collection.query_texts), collection.document_texts

    def look_up(batch: dict[str, list[int]]) -> dict[str, list[str]]:
        return {
            name: [(queries if name == "query" else documents)[row] for row in rows]
            for name, rows in batch.items()
        }

    pairs = pair_rows(collection.positive_rows)
    return Dataset.from_dict({"query": pairs[:, 0], "positive": pairs[:, 1]}).with_transform(look_up)
