"""Probabilities follow decisions, as far as there are enough of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, logit

from rrra_hf.candidates import CandidatePool
from rrra_hf.labels.review.decisions import Decision, Decisions
from rrra_hf.labels.review.next_pair import worth
from rrra_hf.labels.review.recalibration import INTERCEPT_SPREAD, Recalibration, recalibrate

NAN = float("nan")


def pool_of(probability: list[list[float]] | None) -> CandidatePool:
    """A pool with documents d0, d1, ... for each query; NaN means no candidate."""
    p = np.array([[0.5, 0.5]] if probability is None else probability)
    present = ~np.isnan(p)
    return CandidatePool(
        query_ids=[f"q{i}" for i in range(len(p))],
        document_ids=[f"d{i}" for i in range(p.shape[1])],
        positives=[np.array([], dtype=int)] * len(p),
        candidates=np.where(present, np.arange(p.shape[1]), -1),
        scores=np.where(present, 0.5, -np.inf),
        probability=None if probability is None else p,
    )


def decided(*made: tuple[str, str, bool, str]) -> Decisions:
    decisions = Decisions()
    for query_id, document_id, relevant, by in made:
        decisions.add(Decision(query_id, document_id, relevant, by, 0.5))
    return decisions


def test_without_decisions_nothing_changes() -> None:
    pool = pool_of([[0.0, 0.3, 1.0], [0.9, NAN, NAN]])
    changed, line = recalibrate(pool, Decisions())
    assert line == Recalibration(slope=1.0, intercept=0.0, decisions=0)
    assert_allclose(changed.probability, pool.probability, rtol=1e-6)


@pytest.mark.parametrize("relevant", [0, 1])
def test_the_line_after_one_decision_by_hand(relevant: int) -> None:
    line = Recalibration.fit(np.array([0.5]), np.array([relevant]))
    # The slope plays no part at log-odds of 0, and the gradient in the intercept is 0.
    assert_allclose(line.slope, 1.0, atol=1e-6)
    assert_allclose(line.intercept / INTERCEPT_SPREAD**2, relevant - expit(line.intercept), atol=1e-5)
    assert (line.intercept > 0) == bool(relevant) and line.decisions == 1


def test_decided_pairs_are_certain_and_the_others_follow() -> None:
    pool = pool_of([[0.5, 0.5, 0.2], [0.0, 0.5, NAN]])
    decisions = decided(("q0", "d0", True, "person"), ("q1", "d1", True, "judge:a"))
    changed, line = recalibrate(pool, decisions)
    first, other = changed.probability
    assert (first[0], other[1], other[0]) == (1.0, 1.0, 0.0) and np.isnan(other[2])
    assert first[1] > 0.5 and first[2] > 0.2 and line.decisions == 2


def test_the_adapter_and_other_collections_teach_nothing() -> None:
    pool = pool_of([[0.5, 0.25]])
    decisions = decided(
        ("q0", "d0", True, "adapter"), ("q7", "d0", True, "person"), ("q0", "d7", True, "person")
    )
    changed, line = recalibrate(pool, decisions)
    assert_array_equal(changed.probability, pool.probability)
    assert line.decisions == 0


def test_pairs_judged_before_teach_nothing() -> None:
    line = Recalibration.fit(np.array([0.0, 0.5]), np.array([0, 0]))
    assert line == Recalibration.fit(np.array([0.5]), np.array([0]))


@pytest.mark.parametrize("order", ["worth", "probability", "chance"])
def test_the_line_is_found_whichever_probabilities_are_asked_about(order: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(-1.5, 1.5, 40_000)
    p, true = expit(x), expit(0.8 * x - 1.2)
    relevant = rng.random(len(x)) < true
    values = {"worth": worth(p[:, None])[:, 0], "probability": p, "chance": rng.random(len(x))}[order]
    rows = np.argsort(-values)[:10_000]
    line = Recalibration.fit(p[rows], relevant[rows])
    assert_allclose([line.slope, line.intercept], [0.8, -1.2], atol=0.08)
    assert abs(line(p).sum() / true.sum() - 1) < 0.05
    # Their share of relevant pairs is no share of all pairs.
    assert (relevant[rows].mean() > 1.5 * true.mean()) == (order != "chance")


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1])
def test_a_judge_that_errs_teaches_the_same_line(share: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(-2.5, 1.5, 40_000)
    p, true = expit(x), expit(x - 0.5)
    answers = (rng.random(len(x)) < true) ^ (rng.random(len(x)) < share)
    line = Recalibration.fit(p, answers, share)
    assert_allclose([line.slope, line.intercept], [1.0, -0.5], atol=0.12)
    # If the judge were believed, there would be more relevant documents than there are.
    believed = Recalibration.fit(p, answers)
    assert (believed(p).sum() > 1.2 * true.sum()) == (share > 0)


def test_a_judge_that_guesses_teaches_nothing() -> None:
    line = Recalibration.fit(np.array([0.3, 0.6]), np.array([1, 0]), 0.5)
    assert_allclose([line.slope, line.intercept], [1.0, 0.0], atol=1e-6)


def test_errors_are_those_of_judges_not_of_persons() -> None:
    pool = pool_of([[0.2, 0.2, 0.2]])
    person, judge = (decided(("q0", "d0", True, by)) for by in ("person", "judge:a"))
    by_person, by_judge = (recalibrate(pool, each)[0].probability[0, 1] for each in (person, judge))
    assert 0.2 < by_judge < by_person
    assert recalibrate(pool, judge, judge_error=0.0)[0].probability[0, 1] == by_person


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=30),
    st.lists(st.floats(0, 1, width=32), min_size=1),
    st.sampled_from([0.0, 0.1, 0.5]),
)
def test_probabilities_stay_probabilities(
    made: list[tuple[float, bool]], given_p: list[float], error: float
) -> None:
    line = Recalibration.fit(np.array([p for p, _ in made]), np.array([y for _, y in made]), error)
    for dtype in (np.float32, np.float64):
        found = line(np.array(given_p, dtype=dtype))
        assert found.dtype == dtype and ((found >= 0) & (found <= 1)).all()


def test_a_probability_that_was_rounded_to_1_can_be_doubted() -> None:
    line = Recalibration.fit(np.full(20, 0.9), np.zeros(20))
    assert line(np.array([1.0], dtype=np.float32))[0] < 1.0
    assert logit(line(np.array([0.9])))[0] < 0


def test_what_cannot_be_recalibrated_is_refused() -> None:
    with pytest.raises(ValueError, match="pool must have probabilities"):
        recalibrate(pool_of(None), Decisions())
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\]"):
        Recalibration.fit(np.array([1.5]), np.array([1]))
