"""What missing labels do to an evaluation: nDCG with the labels as they are, and as they probably are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..data import Qrels, Run
from .audit import Audit
from .missing import level_error
from .review.recalibration import decided, log_odds, recalibrate

TOP = 10
DRAWS = 200
INTERVAL = (5, 95)
DISCOUNTS = 1 / np.log2(np.arange(TOP) + 2)


class Effect(NamedTuple):
    """nDCG@10 of systems under the labels as they are, with those that were decided, and as they may be.

    Args:
        rows: For each system nDCG@10 `as labelled`, `decided` and `expected`, and `low` and `high`, between
            which it lies with a chance of 90 %.
        order_changes: Chance that the best system as labelled isn't the best.
        unjudged: Share of the first ten documents of all systems that nobody judged and that aren't
            candidates of the audit. They count as irrelevant.
    """

    rows: dict[str, dict[str, float]]
    order_changes: float
    unjudged: float


def effect_on_evaluation(audit: Audit, runs: Mapping[str, Run], *, seed: int = 0) -> Effect:
    """Measure systems by the labels as they are, and by labels that are drawn by their probabilities.

    Each of 200 draws is a set of labels: a document that isn't judged is relevant with its probability. As
    the level of all probabilities is uncertain, each draw has a level of its own, see `missing_labels`.

    Args:
        audit: The audit.
        runs: Hits per query id for each system, best first, as `Retriever.search` and `read_run` return them.
        seed: Random seed of the draws.

    Returns:
        The effect.

    Raises:
        ValueError: If there is no system.

    Example:
        ::

            found = audit(load_collection("my-collection"), encoder, split="test")
            runs = {"bm25": read_run("bm25.trec"), "mine": read_run("mine.trec")}
            effect = effect_on_evaluation(found, runs)
            print(effect.rows["mine"]["expected"], effect.order_changes)
    """
    if not runs:
        raise ValueError("runs must have at least one system, got none.")
    found = _Found.of(audit, runs)
    labels = decided(audit.pool, audit.decisions)[0]
    nothing = np.zeros(labels.shape, dtype=bool)
    drawn = np.array([found.ndcg(relevant) for relevant in _drawn(audit, labels, seed)])
    columns = {
        "as labelled": found.ndcg(nothing),
        "decided": found.ndcg(labels > 0),
        "expected": drawn.mean(axis=0),
        **dict(zip(("low", "high"), np.percentile(drawn, INTERVAL, axis=0), strict=True)),
    }
    rows = {
        system: {name: float(values[place]) for name, values in columns.items()}
        for place, system in enumerate(runs)
    }
    changes = drawn.argmax(axis=1) != columns["as labelled"].argmax()
    return Effect(rows, float(changes.mean()), found.unjudged)


def _drawn(audit: Audit, labels: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Yield whether each candidate is relevant, by chance, `(n, depth)`."""
    rng = np.random.default_rng(seed)
    assert audit.pool.probability is not None
    x, line = log_odds(audit.pool.probability), recalibrate(audit.pool, audit.decisions)[1]
    error = level_error(audit.pool.probability, audit.pool.probability[~np.isnan(labels)])
    for _ in range(DRAWS):
        level = line._replace(intercept=line.intercept + error * rng.normal())
        p = np.where(np.isnan(labels), np.nan_to_num(level.of_log_odds(x)), labels)
        yield rng.random(p.shape) < p


class _Found(NamedTuple):
    """What the systems found, and what is known of it.

    Args:
        grades: Grades of the first documents of each system, `(systems, n, 10)`; 0 for unjudged ones.
        places: Their places among the candidates, -1 for others and for judged ones.
        ideal: The ten greatest grades of each query, `(n, 10)`.
        unjudged: Share of documents that are neither judged nor candidates.
    """

    grades: np.ndarray
    places: np.ndarray
    ideal: np.ndarray
    unjudged: float

    @classmethod
    def of(cls, audit: Audit, runs: Mapping[str, Run]) -> _Found:
        """Look up the first documents of each system."""
        pool, qrels = audit.pool, audit.collection.qrels
        shape = len(runs), len(pool), TOP
        grades, places = np.zeros(shape), np.full(shape, -1)
        unjudged = total = 0
        for row, (query_id, names) in enumerate(zip(pool.query_ids, pool.candidate_ids, strict=True)):
            judged = qrels[query_id]
            place_of = {name: place for place, name in enumerate(names)}
            for system, run in enumerate(runs.values()):
                for rank, name in enumerate(_first(run.get(query_id, ()), query_id, judged)):
                    total += 1
                    grades[system, row, rank] = max(judged.get(name, 0), 0)
                    if name not in judged:
                        places[system, row, rank] = place_of.get(name, -1)
                        unjudged += name not in place_of
        return cls(grades, places, _ideal(pool.query_ids, qrels), unjudged / max(1, total))

    def ndcg(self, relevant: np.ndarray) -> np.ndarray:
        """Return the mean nDCG@10 of each system, `(systems,)`.

        Args:
            relevant: Whether each candidate is relevant, with grade 1, `(n, depth)`.
        """
        lines = np.arange(len(relevant))[:, None]
        gains = self.grades + np.where(self.places >= 0, relevant[lines, self.places], False)
        # Grades of labels are at least 1, so new ones come after them.
        known = (self.ideal > 0).sum(axis=1)
        count = np.minimum(known + relevant.sum(axis=1), TOP)
        ranks = np.arange(TOP)
        new = (ranks >= known[:, None]) & (ranks < count[:, None])
        best = ((self.ideal + new) * DISCOUNTS).sum(axis=1)
        values = (gains * DISCOUNTS).sum(axis=-1) / np.where(best > 0, best, 1)
        return np.asarray(values.mean(axis=1))


def _first(hits: Sequence[Mapping[str, Any]], query_id: str, judged: Mapping[str, int]) -> list[str]:
    """Return the first ten documents, without the query itself unless it is relevant, as BEIR measures."""
    names = (str(hit["corpus_id"]) for hit in hits)
    return [name for name in names if name != query_id or judged.get(name, 0) > 0][:TOP]


def _ideal(query_ids: list[str], qrels: Qrels) -> np.ndarray:
    ideal = np.zeros((len(query_ids), TOP))
    for row, query_id in enumerate(query_ids):
        best = sorted((grade for grade in qrels[query_id].values() if grade > 0), reverse=True)[:TOP]
        ideal[row, : len(best)] = best
    return ideal
