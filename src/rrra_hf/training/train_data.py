"""What the stages train on: the queries' splits, pairs, and pairs with drawn negatives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from datasets import Dataset

from ..data import Collection
from ..mining import CandidatePool
from ..sampling import draw_negatives, rrra_weights
from .examples import pair_rows
from .train_arguments import TrainArguments


def with_development(collection: Collection, fraction: float, seed: int) -> Collection:
    """Return the collection with the splits `train` and `dev`.

    Args:
        collection: The collection.
        fraction: Share of the training queries held out where there is no split `dev`.
        seed: Seed of that choice.

    Raises:
        ValueError: If there is no split `train`, or not enough queries to train on.
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
    """Return the columns `query` and `positive`, a row for every labelled pair."""
    pairs = pair_rows(collection.positive_rows)
    return _with_texts({"query": pairs[:, 0], "positive": pairs[:, 1]}, collection)


def resampled_dataset(
    collection: Collection, pool: CandidatePool, arguments: TrainArguments, epochs: int
) -> Dataset:
    """Return pairs with negatives drawn from the pool, drawn anew for every epoch.

    Pairs of queries without a candidate that can be drawn are left out.

    Args:
        collection: The collection of the pool's queries.
        pool: Candidates with false-negative probabilities.
        arguments: Settings of the draw.
        epochs: Times that each pair is there.

    Returns:
        Columns `query`, `positive`, `negative_1` to `negative_n`, and the weights, `scores`.

    Raises:
        ValueError: If no query has a candidate that can be drawn.
    """
    settings = {"gamma": arguments.gamma, "hardness": arguments.hardness, "tau": arguments.fit.tau}
    drawable = pool.candidates >= 0
    if arguments.sampling == "sample":
        assert pool.false_negative_probability is not None
        drawable = rrra_weights(pool.false_negative_probability, scores=pool.scores, **settings) > 0
    pairs = pair_rows(pool.positives)
    pairs = pairs[np.any(drawable, axis=1)[pairs[:, 0]]]
    if not len(pairs):
        raise ValueError("No training query has a candidate to draw negatives from.")
    draws = [
        draw_negatives(
            pool,
            arguments.num_negatives,
            rng=np.random.default_rng([arguments.seed, epoch]),
            query_rows=pairs[:, 0],
            mode=arguments.sampling,
            **settings,
        )
        for epoch in range(epochs)
    ]
    negatives, weights = (np.concatenate(parts) for parts in zip(*draws, strict=True))
    columns = {
        "query": np.tile(pairs[:, 0], epochs),
        "positive": np.tile(pairs[:, 1], epochs),
        **{f"negative_{i}": column for i, column in enumerate(negatives.T, start=1)},
        "scores": list(weights),
    }
    return _with_texts(columns, collection)


def _with_texts(columns: dict[str, Any], collection: Collection) -> Dataset:
    """Return a dataset of rows whose texts are looked up when they are read, not stored many times."""
    queries, documents = list(collection.query_texts), collection.document_texts

    def look_up(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        texts = {name: queries if name == "query" else documents for name in batch if name != "scores"}
        return {
            name: [texts[name][row] for row in values] if name in texts else values
            for name, values in batch.items()
        }

    return Dataset.from_dict(columns).with_transform(look_up)
