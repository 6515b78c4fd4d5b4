"""Asking a judge where the adapter is unsure."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from ...candidates import CandidatePool
from ...data import Collection
from ...evaluation.checks import check_between, check_count
from ..judges.base import Cost, Judge
from .decisions import JUDGE, Decision, Decisions
from .next_pair import most_worth
from .pair_texts import PairTexts
from .recalibration import JUDGE_ERROR, decided, recalibrate

# Pairs to ask about until the probabilities are recalibrated, and other pairs may be more uncertain.
ROUND = 100
# Without the adapter, a judge would be asked about all candidates that are at least so probable: those that
# are less probable hold few labels.
LOW = 0.02


class Judging(NamedTuple):
    """What a judge was asked, and what it answered.

    Args:
        judge: Name of the judge.
        calls: Calls that were made. There are more than pairs if answers had to be asked for again.
        relevant: Pairs that it found relevant.
        not_relevant: Pairs that it found not relevant.
        undecided: Pairs to which it gave no answer.
        left: Pairs that the answers made uncertain, or for which there were no calls: a second run asks about
            them.
        without: Pairs that it would have been asked about without the adapter: those with a probability of
            at least `LOW`.
    """

    judge: str
    calls: int
    relevant: int
    not_relevant: int
    undecided: int
    left: int
    without: int

    @property
    def saved(self) -> int:
        """Calls that were saved."""
        return max(0, self.without - self.calls)


def cost_of_judging(
    collection: Collection,
    pool: CandidatePool,
    decisions: Decisions,
    judge: Judge,
    *,
    judge_error: float = JUDGE_ERROR,
    max_calls: int | None = None,
) -> Cost:
    """Return what `judge_uncertain` costs at most, except for answers that have to be asked for again.

    Args:
        collection: The collection.
        pool: Its candidates with the adapter's probabilities.
        decisions: What was decided.
        judge: The judge.
        judge_error: As for `judge_uncertain`.
        max_calls: Calls at most.

    Raises:
        ValueError: If the pool has no probabilities or other documents than the collection.
    """
    probability = _probability(pool, decisions, judge_error)
    pairs = _to_ask(probability, np.isnan(decided(pool, decisions)[0]), judge_error, max_calls)
    return judge.cost(PairTexts(collection, pool).texts(pairs))


def judge_uncertain(
    collection: Collection,
    pool: CandidatePool,
    decisions: Decisions,
    judge: Judge,
    *,
    judge_error: float = JUDGE_ERROR,
    max_calls: int | None = None,
) -> Judging:
    """Ask a judge about the pairs of which the adapter knows less than the judge.

    If the adapter decides a pair of probability p, it errs with probability min(p, 1 - p). Asking is a gain
    where that is more than the judge's share of errors. The pairs that are worth most come first. After each
    `ROUND` of them, the probabilities are recalibrated from what was decided. If that makes more pairs
    uncertain than `cost_of_judging` counted, they are left for a second run.

    Each answer is added to the decisions when it comes. So a run that was stopped goes on where it was.

    Mean F1 of the labels of 10 collections, and calls, with judges that err at random, 3 encoders and an
    adapter that saw no label of the collections (`benchmarks/decisions.py`). The judge is asked once, again
    until nothing is left, and, without the adapter, about all pairs with a probability of at least `LOW`:

    | relevant missed | others called relevant | `judge_error` | once | calls | again | calls | all | calls |
    | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
    | 5 % | 5 % | .05 | .758 | 1457 | .759 | 1602 | .727 | 4193 |
    | 20 % | 5 % | .05 | .668 | 1349 | .669 | 1461 | .645 | 4193 |
    | 10 % | 10 % | .05 | .652 | 2072 | .594 | 3705 | .582 | 4193 |
    | 10 % | 10 % | .1 | .638 | 812 | .645 | 965 | .582 | 4193 |
    | 10 % | 2 % | .02 | .809 | 2703 | .810 | 2757 | .804 | 4193 |

    Args:
        collection: The collection.
        pool: Its candidates with the adapter's probabilities.
        decisions: What was decided. Pairs that a person or a judge decided are not asked about.
        judge: The judge.
        judge_error: The judge's share of errors among documents that are not relevant, in [0, .5]. The
            smaller it is, the more pairs the judge is asked about.
        max_calls: Calls at most.

    Returns:
        What was asked and answered.

    Raises:
        ValueError: If the pool has no probabilities or other documents than the collection, `judge_error` is
            outside [0, .5], or `max_calls` is less than 1.
        OSError: If the judge can't be asked any more, or a decision can't be saved.
    """
    check_between("judge_error", np.array([judge_error]), 0, 0.5)
    if max_calls is not None:
        check_count("max_calls", max_calls)
    pairs = PairTexts(collection, pool)
    probability = _probability(pool, decisions, judge_error)
    undecided = np.isnan(decided(pool, decisions)[0])
    without = int((undecided & (probability >= LOW)).sum())
    left = len(_to_ask(probability, undecided, judge_error, max_calls))
    before = judge.calls
    answers: Counter[bool | None] = Counter()
    while left > 0 and (max_calls is None or judge.calls - before < max_calls):
        probability = _probability(pool, decisions, judge_error)
        asked = _to_ask(probability, undecided, judge_error, min(left, ROUND))
        left -= len(asked) or left
        calls = None if max_calls is None else max_calls - (judge.calls - before)
        for number, relevant in judge.judge(pairs.texts(asked), calls):
            row, place = asked[number]
            undecided[row, place] = False
            answers[relevant] += 1
            if relevant is not None:
                by, p = JUDGE + judge.name, float(probability[row, place])
                decisions.add(Decision(*pairs.ids(row, place), relevant, by, p))
    more = _to_ask(_probability(pool, decisions, judge_error), undecided, judge_error, None)
    counts = answers[True], answers[False], answers[None]
    return Judging(judge.name, judge.calls - before, *counts, len(more), without)


def _probability(pool: CandidatePool, decisions: Decisions, judge_error: float) -> np.ndarray:
    """Return the recalibrated probabilities of a pool."""
    probability = recalibrate(pool, decisions, judge_error)[0].probability
    assert probability is not None
    return probability


def _to_ask(
    probability: np.ndarray, undecided: np.ndarray, judge_error: float, count: int | None
) -> np.ndarray:
    """Return the pairs that the judge knows more of, those that are worth most first, `(pairs, 2)`."""
    unsure = undecided & (np.minimum(probability, 1 - probability) > judge_error)
    return most_worth(probability, unsure, unsure.size if count is None else count)
