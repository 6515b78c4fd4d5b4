"""What decisions are worth: how many missing labels they find, and what the probabilities learn from them.

Of each test query of a collection, one relevant document is labelled, and an oracle decides about the others.
The adapter is the one that comes trained, on collections whose labels it hasn't seen, with several encoders.

Orders: labels found, and the errors that are left, after 100 decisions in different orders. Each order is one
of `labels.worth` or what it is made of.
Recalibration: calibration error of undecided pairs, and the expected number of relevant pairs by the true
one, after some decisions in the order of their worth.
Judges: F1 of the labels, and calls, of a judge that is asked about uncertain pairs, once and again until none
is left, and of one that decides about all pairs with a probability of at least `judging.LOW`. Judges miss
relevant documents and call others relevant, at random.

Run: OMP_NUM_THREADS=1 python benchmarks/decisions.py --data DATA --out results/decisions.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from common import markdown, report
from rrra_hf import RetrieverAdapter
from rrra_hf.candidates import CandidatePool, mine_embeddings
from rrra_hf.candidates.reading import with_probability
from rrra_hf.data import Collection
from rrra_hf.embeddings import CollectionEmbeddings
from rrra_hf.evaluation import expected_calibration_error
from rrra_hf.labels.judges import Cost, Texts
from rrra_hf.labels.review.decisions import Decisions
from rrra_hf.labels.review.judging import LOW, judge_uncertain
from rrra_hf.labels.review.next_pair import worth
from rrra_hf.labels.review.recalibration import Recalibration, recalibrate
from taught import ENCODERS, OTHERS, Taught

CHECKED = (0, 20, 50, 100, 200)
ORDERS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "random": lambda p, chance: chance,
    "p": lambda p, chance: p,
    "p (1 - p)": lambda p, chance: p * (1 - p),
    "p (1 - p) / log2(1 + rank)": lambda p, chance: p * (1 - p) * discounts(p),
    "p * p (1 - p) / log2(1 + rank)": lambda p, chance: worth(p),
}
# Relevant documents that a judge misses, others that it calls relevant, and `judge_error`.
JUDGES = ((0.05, 0.05, 0.05), (0.2, 0.05, 0.05), (0.1, 0.1, 0.05), (0.1, 0.1, 0.1), (0.1, 0.02, 0.02))


class Task(NamedTuple):
    """Candidates of a collection, and which of them are relevant.

    Args:
        name: Name of the collection.
        encoder: Name of the encoder.
        pool: The candidates with their probabilities.
        relevant: Whether they are relevant, `(n, k)`.
    """

    name: str
    encoder: str
    pool: CandidatePool
    relevant: np.ndarray


class State(NamedTuple):
    """What is known after some decisions.

    Args:
        found: Relevant pairs that were found.
        calibration_error: Calibration error of undecided pairs.
        ratio: Expected number of relevant pairs by the true one.
        query_error: Mean error of a query's nDCG@10.
    """

    found: float
    calibration_error: float
    ratio: float
    query_error: float


class NoisyJudge:
    """Knows the truth, and errs at random. Its texts are rows of queries and of documents."""

    name = "oracle"

    def __init__(self, relevant: np.ndarray, missed: float, false: float):
        self.calls = 0
        chance = np.random.default_rng(0).random(relevant.shape)
        self.answers = np.where(relevant, chance >= missed, chance < false)

    def cost(self, texts: Sequence[Texts]) -> Cost:
        """Return the number of pairs."""
        return Cost(len(texts), 0)

    def judge(self, texts: Sequence[Texts], max_calls: int | None = None) -> Iterator[tuple[int, bool]]:
        """Yield the answers."""
        for number, (query, place) in enumerate(texts[:max_calls]):
            self.calls += 1
            yield number, bool(self.answers[int(query), int(place)])


def task(taught: Taught, encoder: str, adapter: RetrieverAdapter) -> Task:
    """Label one relevant document of each test query, and mine the others."""
    queries, rng = taught.parts["test"], np.random.default_rng(0)
    kept = [rng.choice(rows, 1) for rows in queries.positives]
    pool = mine_embeddings(
        queries.embeddings, taught.documents, kept, query_words=queries.words, document_words=taught.words
    )
    embeddings = CollectionEmbeddings(queries.embeddings, taught.documents, {})
    pool = with_probability(pool, adapter, embeddings, queries.words, taught.words)
    relevant = np.stack(
        [np.isin(rows, known) for rows, known in zip(pool.candidates, queries.positives, strict=True)]
    )
    return Task(taught.name, encoder, pool, relevant & (pool.candidates >= 0))


def discounts(p: np.ndarray) -> np.ndarray:
    """Return what a document counts in nDCG by its rank."""
    return 1 / np.log2(np.arange(p.shape[1]) + 2)


def ndcg(p: np.ndarray) -> np.ndarray:
    """Return about the nDCG@10 of the candidates' ranking, without the labelled document."""
    ideal = np.concatenate([[0.0], np.cumsum(discounts(np.empty((1, 10)))), np.full(p.shape[1], np.nan)])
    ideal[11:] = ideal[10]
    number = p.sum(axis=1) + 1
    below = np.floor(number).astype(int)
    between = ideal[below] + (number - below) * (ideal[below + 1] - ideal[below])
    return (p[:, :10] * discounts(p)[:10]).sum(axis=1) / between


def review(given: Task, order: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> list[State]:
    """Decide pair by pair, and return what is known at `CHECKED`."""
    probability = given.pool.probability
    assert probability is not None
    present, chance = ~np.isnan(probability), np.random.default_rng(0).random(probability.shape)
    labels, states = np.full(probability.shape, np.nan), []
    for count in range(max(CHECKED) + 1):
        decided = ~np.isnan(labels)
        p = np.nan_to_num(Recalibration.fit(probability[decided], labels[decided])(probability))
        if count in CHECKED:
            known, left = np.where(decided, labels, p), present & ~decided
            states.append(
                State(
                    np.nansum(labels),
                    expected_calibration_error(p[left], given.relevant[left]),
                    known.sum() / given.relevant.sum(),
                    np.abs(ndcg(known) - ndcg(given.relevant)).mean(),
                )
            )
        chosen = np.where(present & ~decided, order(p, chance), -1).argmax()
        labels.flat[chosen] = given.relevant.flat[chosen]
    return states


def orders(tasks: list[Task]) -> list[dict[str, Any]]:
    """Compare orders after 100 decisions, over all tasks."""
    rows = []
    for name, order in ORDERS.items():
        states = [State(*np.array(review(each, order)[CHECKED.index(100)])) for each in tasks]
        found, calibration_error, ratio, query_error = np.array(states).T
        rows.append(
            {
                "order": name,
                "labels found": f"{found.mean():.0f}",
                "error of a query's nDCG@10": query_error.mean(),
                "calibration error of the rest": calibration_error.mean(),
                "number wrong by a factor of": float(np.exp(np.abs(np.log(ratio)).mean())),
            }
        )
    return rows


def recalibration(tasks: list[Task]) -> list[dict[str, Any]]:
    """Return calibration errors and ratios after some decisions, for each task."""
    rows = []
    for each in tasks:
        states = review(each, ORDERS["p * p (1 - p) / log2(1 + rank)"])
        errors = {
            f"ECE {count}": state.calibration_error for count, state in zip(CHECKED, states, strict=True)
        }
        ratios = {f"ratio {count}": state.ratio for count, state in zip(CHECKED, states, strict=True)}
        rows.append({"collection": each.name, "encoder": each.encoder, **errors, **ratios})
    return rows


def judges(tasks: list[Task]) -> list[dict[str, Any]]:
    """Compare a judge that is asked about uncertain pairs with one that is asked about all."""
    rows = []
    for missed, false, judge_error in JUDGES:
        measured = [judged(each, missed, false, judge_error) for each in tasks]
        means = np.array(measured).mean(axis=0)
        names = ("F1", "calls", "F1, again", "calls, again", "F1, all", "calls, all")
        kinds = {"missed": f"{missed:.0%}", "false": f"{false:.0%}", "judge_error": f"{judge_error:.2f}"}
        shown = [f"{value:.3f}" if value < 1 else f"{value:.0f}" for value in means]
        rows.append({**kinds, **dict(zip(names, shown, strict=True))})
    return rows


def judged(given: Task, missed: float, false: float, judge_error: float) -> list[float]:
    """Return F1 and calls of a judge that is asked once, again until nothing is left, and about all pairs."""
    pool, judge = numbered(given.pool), NoisyJudge(given.relevant, missed, false)
    n, k = pool.candidates.shape
    collection = Collection(
        name=given.name,
        corpus=Dataset.from_dict(
            {"id": pool.document_ids, "title": [""] * k, "text": list(map(str, range(k)))}
        ),
        queries=Dataset.from_dict({"id": pool.query_ids, "text": list(map(str, range(n)))}),
        qrels_by_split={},
    )
    decisions, measured = Decisions(), []
    left = True
    while left:
        left = judge_uncertain(collection, pool, decisions, judge, judge_error=judge_error).left > 0
        followed = recalibrate(pool, decisions, judge_error)[0].probability
        assert followed is not None
        measured.append((f1(np.nan_to_num(followed) > 0.5, given.relevant), judge.calls))
    assert pool.probability is not None
    asked = np.nan_to_num(pool.probability) >= LOW
    return [*measured[0], *measured[-1], f1(asked & judge.answers, given.relevant), int(asked.sum())]


def numbered(pool: CandidatePool) -> CandidatePool:
    """Return a pool whose documents are the places of candidates."""
    n, k = pool.candidates.shape
    places = np.where(pool.candidates >= 0, np.arange(k), -1)
    ids = [str(place) for place in range(k)]
    return CandidatePool(
        pool.query_ids, ids, [np.array([], dtype=np.int64)] * n, places, pool.scores, pool.probability
    )


def f1(labels: np.ndarray, relevant: np.ndarray) -> float:
    """Return the F1 of labels."""
    return float(2 * (labels & relevant).sum() / max(1, labels.sum() + relevant.sum()))


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the collections")
    parser.add_argument("--collections", nargs="+", default=OTHERS)
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS))
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    adapter = RetrieverAdapter.pretrained()
    tasks = [
        task(Taught(arguments.data / name, ENCODERS[encoder]), encoder, adapter)
        for encoder in arguments.encoders
        for name in arguments.collections
    ]
    tables = {
        "Orders, after 100 decisions": orders(tasks),
        "Recalibration": recalibration(tasks),
        "Judges": judges(tasks),
    }
    for title, rows in tables.items():
        out = arguments.out and arguments.out.with_stem(f"{arguments.out.stem}_{title.split(',')[0].lower()}")
        report(title, rows, out)
        print(markdown(rows))


if __name__ == "__main__":
    main()
