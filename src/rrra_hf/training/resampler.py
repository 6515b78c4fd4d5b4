"""A training set whose negatives are drawn when a row is read, and again in each epoch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator, Philox
from safetensors.numpy import load_file, save_file
from sentence_transformers.base.sampler import BatchSamplers
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..candidates import CandidatePool
from ..candidates.labelled import pair_rows
from ..data import Collection
from ..evaluation.checks import check_count
from ..labels import draw, drop_strategy
from ..models.files_rrra import write_aside
from .pair_dataset import LABELS, NEGATIVE, POSITIVE, QUERY, PairDataset

Strategy = Callable[[CandidatePool], tuple[np.ndarray, np.ndarray | None]]
"""From a pool to chances `(n, k)` of being drawn, and weights `(n, k)`, or None if all weigh 1."""

LABEL_COLUMNS = {"weights": "scores", "rows": "labels"}


class Resampler(TrainerCallback):
    """A training set of (query, positive) pairs whose negatives are drawn again in each epoch.

    `dataset` has a row for every labelled pair. Texts are looked up and negatives are drawn when a row is
    read. A draw depends only on seed, epoch, pair and pool. It doesn't depend on the order of reading, the
    number of processes, or the workers of a data loader, and a resumed run draws the same negatives. Add the
    resampler to the callbacks of the trainer, because that is how it knows the epoch. What you make of the
    dataset, with `rename_column`, `map`, `shuffle` and others, draws negatives, too, see `PairDataset`.

    Pairs of queries without a candidate that can be drawn are left out. If a query has none in a later pool,
    its columns are filled with random documents of weight 0.

    Args:
        collection: The collection that the pool was mined from, with the same queries and documents.
        pool: Candidates; with false-negative probabilities, if the strategy needs them, as the default does.
        num_negatives: Negatives per pair.
        strategy: A function that takes the pool. It returns chances of being drawn on any scale, `(n, k)`, 0
            for candidates that must not be drawn, and weights `(n, k)`, or None if all weigh 1. By default,
            all candidates but suspects are as likely, see `drop_strategy`.
        labels: `"weights"`: the dataset has a column `scores` with the weights of the negatives; `"rows"`: a
            column `labels` with the pool's rows of query, positive and negatives; None: neither.
        seed: Random seed.

    Raises:
        ValueError: If collection and pool don't match, an argument is not legal, or no query has a candidate
            that can be drawn.

    Example:
        ::

            resampler = Resampler(collection, pool, num_negatives=4, labels="rows")
            trainer = SentenceTransformerTrainer(
                model=model,
                args=args,
                train_dataset=resampler.dataset,
                loss=RRRALoss(model, pool=pool),
                callbacks=[resampler],
            )

        With another strategy, the second of which gives weights to the loss::

            Resampler(collection, pool, strategy=lambda pool: (top_k_weights(pool.scores, top_k=20), None))
            Resampler(collection, pool, strategy=rrra_strategy)
    """

    def __init__(
        self,
        collection: Collection,
        pool: CandidatePool,
        *,
        num_negatives: int = 4,
        strategy: Strategy = drop_strategy,
        labels: str | None = "weights",
        seed: int = 0,
    ):
        check_count("num_negatives", num_negatives)
        if labels is not None and labels not in LABEL_COLUMNS:
            raise ValueError(f"labels must be 'weights', 'rows' or None, got {labels!r}.")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}.")
        for name in ("query_ids", "document_ids"):
            _check_same(name, getattr(pool, name), getattr(collection, name), "the collection's")
        chances, weights = _applied(strategy, pool)
        drawable = np.any(chances > 0, axis=1)
        if not drawable.any():
            raise ValueError("No training query has a candidate to draw negatives from.")
        pairs = pair_rows(pool.positives)
        pairs = pairs[drawable[pairs[:, 0]]]

        names = ["query", "positive", *(f"negative_{i}" for i in range(1, num_negatives + 1))]
        columns = {name: column for column, name in enumerate(names, QUERY)}
        if labels is not None:
            columns[LABEL_COLUMNS[labels]] = LABELS
        # datasets pickles the source for a fingerprint, so the dataset is made before this object holds
        # anything large.
        self.dataset = PairDataset.of(self, len(pairs), columns)

        self.collection = collection
        self.num_negatives = num_negatives
        self.strategy = strategy
        self.seed = seed
        self._weigh = labels == "weights"
        self._pool, self._chances, self._weights = pool, chances, weights
        self._queries, self._documents = list(collection.query_texts), collection.document_texts
        self._pairs = pairs
        self._negatives = np.zeros((len(pairs), num_negatives), dtype=np.int32)
        self._negative_weights = np.zeros((len(pairs), num_negatives), dtype=np.float32)
        self._drawn = np.zeros(len(pairs), dtype=bool)
        self._epoch = self._next_epoch = 0
        self._loaded: dict[str, np.ndarray] | None = None

    # ---------------------------------------------------------------- pool and epoch

    @property
    def pool(self) -> CandidatePool:
        """The pool that is drawn from; you can replace it by one of the same queries, positives, documents.

        A pair that was already read in this epoch keeps its negatives until the next epoch.
        """
        return self._pool

    @pool.setter
    def pool(self, pool: CandidatePool) -> None:
        for name in ("query_ids", "document_ids"):
            _check_same(name, getattr(pool, name), getattr(self._pool, name), "those of the pool before")
        before = sorted_rows(self._pool.positives)
        _check_same("positives", sorted_rows(pool.positives), before, "those of the pool before")
        self._chances, self._weights = _applied(self.strategy, pool)
        self._pool = pool

    @property
    def epoch(self) -> int:
        """The epoch. The trainer sets it; then every pair gets new negatives."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._drawn[:] = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse settings with which the trainer would not see the negatives of new epochs."""
        if args.dataloader_num_workers > 0 and args.dataloader_persistent_workers:
            raise ValueError(
                "dataloader_persistent_workers must be False with a Resampler: such workers aren't told "
                "about new epochs and repeat the negatives of the first."
            )
        if getattr(args, "batch_sampler", None) == BatchSamplers.NO_DUPLICATES_HASHED:
            raise ValueError(
                "batch_sampler must not be 'no_duplicates_hashed' with a Resampler: it hashes the negatives "
                "of the first epoch for all. Use 'no_duplicates'."
            )
        # Counted from here on. The trainer's own number isn't an integer if an epoch ended early.
        self._next_epoch = int(state.epoch)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin the epoch, or continue one that was interrupted."""
        self.epoch = self._next_epoch
        self._next_epoch += 1
        loaded, self._loaded = self._loaded, None
        if loaded is not None and loaded["epoch"] == self._epoch:
            self._keep(loaded["pairs"], loaded["negatives"], loaded["weights"])

    # ---------------------------------------------------------------- draws

    def save_draws(self, path: str | os.PathLike[str]) -> None:
        """Write the negatives of the pairs that were read in this epoch, as safetensors.

        A resumed run needs them if the pool changed in the middle of the epoch.
        """
        pairs = np.flatnonzero(self._drawn)
        content = {
            "epoch": np.array(self._epoch),
            "pairs": pairs,
            "negatives": self._negatives[pairs],
            "weights": self._negative_weights[pairs],
        }
        with write_aside(path) as temporary:
            save_file(content, temporary)

    def load_draws(self, path: str | os.PathLike[str]) -> None:
        """Read what `save_draws` wrote. It is used at the next `on_epoch_begin`, if that is its epoch."""
        self._loaded = load_file(path)

    def _keep(self, pairs: np.ndarray | int, negatives: np.ndarray, weights: np.ndarray) -> None:
        self._negatives[pairs], self._negative_weights[pairs] = negatives, weights
        self._drawn[pairs] = True

    def _draw(self, pair: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of a pair's negatives and their weights, `(num_negatives,)` each."""
        query = self._pairs[pair, 0]
        chances = self._chances[query : query + 1]
        # The counter gives each pair its own part of the random numbers of the epoch.
        rng = Generator(Philox(key=self.seed, counter=[0, 0, pair, self._epoch]))
        if not chances.any():
            rows = rng.integers(len(self._documents), size=self.num_negatives)
            return rows, np.zeros(self.num_negatives)
        places = draw(chances, self.num_negatives, rng=rng)[0]
        weights = np.ones(self.num_negatives) if self._weights is None else self._weights[query, places]
        return self._pool.candidates[query, places], weights

    def value(self, pair: int, column: int) -> str | list[float] | list[int]:
        """Return what a pair has in a column of the dataset, see `PairDataset`."""
        if column == QUERY:
            return self._queries[self._pairs.item(pair, 0)]
        if column == POSITIVE:
            return self._documents[self._pairs.item(pair, 1)]
        if not self._drawn[pair]:
            self._keep(pair, *self._draw(pair))
        if column != LABELS:
            return self._documents[self._negatives.item(pair, column - NEGATIVE)]
        if self._weigh:
            return self._negative_weights[pair].tolist()
        return [*self._pairs[pair].tolist(), *self._negatives[pair].tolist()]


def _applied(strategy: Strategy, pool: CandidatePool) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the chances and weights of a pool's candidates, checked."""
    chances, weights = strategy(pool)
    chances = np.asarray(chances)
    for name, values in (("chances", chances), ("weights", weights)):
        if values is None:
            continue
        if values.shape != pool.candidates.shape or not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(
                f"strategy must return {name} of shape {pool.candidates.shape}, finite and at least 0, "
                f"got shape {values.shape}."
            )
    if chances[pool.candidates < 0].any():
        raise ValueError("strategy must return chances that are 0 where there is no candidate.")
    return chances, weights


def _check_same(name: str, given: Sequence[Any], expected: Sequence[Any], whose: str) -> None:
    """Raise a ValueError that names the first difference, if there is one."""
    if given == expected:
        return
    if len(given) != len(expected):
        raise ValueError(f"The pool's {name} must be {whose}: got {len(given)}, not {len(expected)}.")
    row = next(row for row in range(len(given)) if given[row] != expected[row])
    raise ValueError(
        f"The pool's {name} must be {whose}: row {row} is {given[row]!r}, not {expected[row]!r}."
    )


def sorted_rows(positives: Sequence[np.ndarray]) -> list[list[int]]:
    """Return each query's rows in ascending order, as lists."""
    return [sorted(rows.tolist()) for rows in positives]
