"""Features of candidates, each in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor

from feature_task import DIM, HALF, directions
from rrra_hf.models import features_rrra as features
from rrra_hf.models.features_rrra import (
    FEATURES,
    CandidateFeatures,
    Candidates,
    ranks,
    standard_scores,
)
from rrra_hf.models.memory_rrra import Memory

K = 14
RNG = np.random.default_rng(0)
# Two queries; the second has twelve candidates and no word.
Q, C = directions(2, DIM, seed=1), directions(2, K, DIM, seed=2)
COSINES = np.einsum("nd,nkd->nk", Q, C)
PRESENT = np.ones((2, K), dtype=bool)
PRESENT[1, 12:] = False
WORDS = np.where(RNG.random((2, K)) < 0.6, RNG.random((2, K)), 0).astype(np.float32)
WORDS[1] = 0
COVERAGE, LENGTH = (RNG.random((2, K)).astype(np.float32) for _ in range(2))
LABELLED = np.array([3, 5])


def candidates(memory: Memory | None = None, **known: Any) -> Candidates:
    known = {"words": WORDS, "coverage": COVERAGE, "length": LENGTH, "present": PRESENT, **known}
    known = {"query_words": np.array([3.0, 0.0]), **known}
    tensors = {name: None if value is None else torch.as_tensor(value) for name, value in known.items()}
    q, c, cosines = (torch.from_numpy(values.copy()) for values in (Q, C, COSINES))
    cosines[~torch.from_numpy(PRESENT)] = -torch.inf
    return Candidates(memory or Memory(DIM, 0, 0, 0), q, c, cosines, CandidateFeatures(**tensors))


def compute(name: str, **known: Any) -> np.ndarray:
    return FEATURES[name](candidates(**known)).numpy()


def z(values: np.ndarray) -> np.ndarray:
    """Standard scores among the candidates, 0 elsewhere."""
    scores = np.zeros((2, K))
    for row, present in enumerate(PRESENT):
        x = values[row, present]
        scores[row, present] = (x - x.mean()) / (x.std() + 1e-6)
    return scores


def rank_of(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Ranks from 0 among the kept values, K elsewhere."""
    found = np.full(values.shape, K)
    for row in range(len(values)):
        order = [place for place in np.argsort(-values[row], kind="stable") if kept[row, place]]
        found[row, order] = np.arange(len(order))
    return found


BY_COSINE, BY_WORDS = rank_of(COSINES, PRESENT), rank_of(WORDS, WORDS > 0)
BEST = np.where(PRESENT, COSINES, -np.inf).max(axis=1, keepdims=True)
BEST_WORDS = np.maximum(WORDS.max(axis=1, keepdims=True), 1e-6)


# -------------------------------------------------------------------- what features are made of


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=9))
def test_standard_scores_and_ranks_are_among_those_present(row: list[tuple[int, bool]]) -> None:
    values, present = (torch.tensor([column]) for column in zip(*row, strict=True))
    scores = standard_scores(values.float(), present)
    x = values[present].numpy()
    expected = (x - x.mean()) / (x.std() + 1e-6) if len(x) else x
    assert_allclose(scores[present], expected, atol=1e-3)
    assert (scores[~present] == 0).all()
    found = ranks(values.float(), present)[0]
    order = sorted(
        range(len(row)), key=lambda place: (not row[place][1], -row[place][0] if row[place][1] else 0)
    )
    assert found[order].tolist() == list(range(len(row)))


def test_equal_values_have_no_standard_score() -> None:
    assert standard_scores(torch.full((1, 4), 3.0), torch.ones(1, 4, dtype=torch.bool)).tolist() == [[0] * 4]
    assert standard_scores(torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.bool)).tolist() == [[0, 0]]


def test_the_tenth_value_is_the_last_where_there_are_fewer() -> None:
    x = candidates(present=np.array([[True] * K, [True] * 3 + [False] * (K - 3)]))
    expected = [[np.sort(COSINES[0])[-10]], [COSINES[1, :3].min()]]
    assert_allclose(x.tenth(x.by_cosine), expected, rtol=1e-6)


# -------------------------------------------------------------------- by the encoder


def test_cosines_are_compared_with_those_of_the_other_candidates() -> None:
    assert_allclose(compute("cosine"), z(COSINES), rtol=1e-3, atol=1e-4)
    assert_allclose(compute("cosine_gap")[PRESENT], ((COSINES - BEST) / 0.05)[PRESENT], rtol=1e-4, atol=1e-4)
    assert_allclose(compute("cosine_rank")[PRESENT], (1 / (1 + BY_COSINE / 10))[PRESENT], rtol=1e-5)
    assert_allclose(compute("cosine_rrf")[PRESENT], (60 / (61 + BY_COSINE))[PRESENT], rtol=1e-5)


def test_consensus_is_the_cosine_with_the_other_best_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "CONSENSUS", 5)
    expected = np.zeros((2, K))
    for row in range(2):
        best = np.flatnonzero(BY_COSINE[row] < 5)
        share = np.exp(COSINES[row, best] / 0.03)
        share /= share.sum()
        for place in range(K):
            others = best != place
            expected[row, place] = C[row, place] @ (share[others] @ C[row, best[others]])
    assert_allclose(compute("consensus"), z(expected), rtol=1e-3, atol=1e-3)


def test_feedback_is_the_cosine_with_the_query_and_its_three_best() -> None:
    expected = np.zeros((2, K))
    for row in range(2):
        best = np.flatnonzero(BY_COSINE[row] < 3)
        expected[row] = C[row] @ (Q[row] + C[row, best].mean(axis=0))
    assert_allclose(compute("feedback"), z(expected), rtol=1e-3, atol=1e-3)


# -------------------------------------------------------------------- by words, and by both


def test_words_are_compared_with_those_of_the_other_candidates() -> None:
    assert_allclose(compute("bm25"), z(WORDS), rtol=1e-3, atol=1e-4)
    assert_allclose(compute("bm25_share"), WORDS / BEST_WORDS, rtol=1e-5)
    assert_allclose(compute("bm25_rank"), (WORDS > 0) / (1 + BY_WORDS / 10), rtol=1e-5)
    assert_allclose(compute("bm25_rrf"), 60 * (WORDS > 0) / (61 + BY_WORDS), rtol=1e-5)
    assert_allclose(compute("coverage"), np.where(PRESENT, COVERAGE, 0))
    assert_allclose(compute("length"), np.where(PRESENT, LENGTH, 0))


def test_fused_consensus_is_the_cosine_with_the_others_that_both_rank_high() -> None:
    expected = np.zeros((2, K))
    fused = np.where(PRESENT, 1 / (61 + BY_COSINE), -1) + np.where(WORDS > 0, 1 / (61 + BY_WORDS), 0)
    for row in range(2):
        best = np.argsort(-fused[row], kind="stable")[:10]
        for place in range(K):
            expected[row, place] = C[row, place] @ C[row, best[best != place]].sum(axis=0) / 10
    assert_allclose(compute("fused_consensus"), z(expected), rtol=1e-3, atol=1e-3)


# -------------------------------------------------------------------- of the query


def test_features_of_the_query_are_the_same_for_all_its_candidates() -> None:
    tenth = np.array([np.sort(COSINES[row, PRESENT[row]])[::-1][9] for row in range(2)])
    tenth_words = np.array([np.sort(WORDS[row, PRESENT[row]])[::-1][9] for row in range(2)])
    both = (BY_COSINE < 10) & (BY_WORDS < 10)
    expected = {
        "best_cosine": BEST[:, 0],
        "cosine_lead": BEST[:, 0] - tenth,
        "cosine_spread": [COSINES[row, PRESENT[row]].std() for row in range(2)],
        "best_bm25": BEST_WORDS[:, 0] / 2.2,
        "bm25_lead": (BEST_WORDS[:, 0] - tenth_words) / BEST_WORDS[:, 0],
        "overlap": both.sum(axis=1) / 10,
        "query_length": np.log1p([3.0, 0.0]),
    }
    for name, values in expected.items():
        found = compute(name)
        assert_allclose(
            found, np.repeat(np.array(values)[:, None], K, axis=1), rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_the_spread_is_that_of_the_first_hundred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "SPREAD", 4)
    expected = [np.sort(COSINES[row, PRESENT[row]])[-4:].std() for row in range(2)]
    assert_allclose(compute("cosine_spread")[:, 0], expected, rtol=1e-4)


# -------------------------------------------------------------------- by labels


def remembering() -> Memory:
    memory = Memory(DIM, 6, 6, 6)
    pairs = torch.arange(6)[:, None].expand(6, 2)
    memory.remember(*(torch.from_numpy(directions(6, DIM, seed=seed)) for seed in (3, 4)), pairs)
    return memory


@pytest.mark.parametrize("are_given", [True, False])
def test_training_queries_tell_of_candidates(are_given: bool) -> None:
    memory = remembering()
    weights, rows, nearest = memory.recall(torch.from_numpy(Q))
    hubness = memory.hubness(torch.from_numpy(C.reshape(-1, DIM))).view(2, K, 1)
    known: dict[str, Any] = {"statics": hubness} if are_given else {}
    answers = np.einsum("nr,nrd->nd", weights.numpy(), memory.answers.float().numpy()[rows.numpy()])
    x = candidates(memory, **known)
    if are_given:
        x.given = x.given._replace(recalled=memory.recall(torch.from_numpy(Q)))
    assert_allclose(features.recalled(x), z(np.einsum("nd,nkd->nk", answers, C)), rtol=1e-3, atol=1e-3)
    assert_allclose(features.nearest_query(x), np.repeat(nearest[:, None], K, axis=1), atol=HALF)
    assert_allclose(features.hubness(x), z(hubness[..., 0].numpy()), rtol=1e-3, atol=1e-3)


def test_a_labelled_document_is_compared_with() -> None:
    rows = np.arange(2)
    known = {"labelled": LABELLED}
    near = np.einsum("nd,nkd->nk", C[rows, LABELLED], C)
    assert_array_equal(compute("has_labelled", **known), 1)
    above = (COSINES - COSINES[rows, LABELLED][:, None]) / 0.05
    assert_allclose(compute("cosine_above_labelled", **known)[PRESENT], above[PRESENT], rtol=1e-4, atol=1e-4)
    above = (WORDS - WORDS[rows, LABELLED][:, None]) / BEST_WORDS
    assert_allclose(compute("bm25_above_labelled", **known), above, rtol=1e-4, atol=1e-5)
    assert_allclose(compute("near_labelled", **known), near, atol=1e-5)
    assert_allclose(compute("near_labelled_score", **known), z(near), rtol=1e-3, atol=1e-3)


def test_without_a_labelled_document_nothing_is_compared() -> None:
    for name in set(features.RELEVANCE) - set(features.RANKING) - {"raw_cosine", "raw_bm25"}:
        assert_array_equal(compute(name), 0, err_msg=name)


def test_values_as_they_are() -> None:
    assert_allclose(compute("raw_cosine"), np.where(PRESENT, COSINES, 0), rtol=1e-6)
    assert_allclose(compute("raw_bm25"), WORDS)


# -------------------------------------------------------------------- all of them


def values_of(x: Candidates) -> dict[str, Tensor]:
    return {name: feature(x) for name, feature in FEATURES.items()}


@pytest.mark.parametrize("labelled", [None, LABELLED])
def test_features_are_finite_whatever_is_not_known(labelled: np.ndarray | None) -> None:
    nothing = {"words": None, "coverage": None, "length": None, "query_words": None}
    for known in ({}, nothing, {"present": np.zeros((2, K), dtype=bool)}):
        for name, values in values_of(candidates(remembering(), labelled=labelled, **known)).items():
            assert values.shape == (2, K), name
            assert torch.isfinite(values).all(), name
    of_words = {
        "bm25",
        "bm25_share",
        "bm25_rank",
        "bm25_rrf",
        "coverage",
        "length",
        "overlap",
        "query_length",
    }
    for name in (*of_words, "raw_bm25", "bm25_above_labelled"):
        assert_array_equal(compute(name, labelled=labelled, **nothing), 0, err_msg=name)


@given(st.integers(0, 1000), st.booleans(), st.sampled_from([1, 3, 1000]))
def test_neither_absent_candidates_nor_their_order_change_a_feature(
    seed: int, labelled: bool, levels: int
) -> None:
    """With few levels, BM25 scores are equal. Only equal cosines are left in the order given."""
    rng = np.random.default_rng(seed)
    q, c, words = (
        directions(1, DIM, seed=seed),
        directions(1, 9, DIM, seed=seed + 1),
        rng.integers(0, levels, (1, 9)) / levels,
    )
    order = rng.permutation(12)

    def compute_all(places: np.ndarray) -> dict[str, np.ndarray]:
        """Read nine candidates, and -1 for none, in some order."""
        rows, known = c[:, places], {"present": places[None] >= 0}
        for name in ("words", "coverage", "length"):
            known[name] = words[:, places].astype(np.float32)
        if labelled:
            known["labelled"] = np.flatnonzero(places == 4)
        given = CandidateFeatures(**{name: torch.from_numpy(value) for name, value in known.items()})
        cosines = torch.from_numpy(np.einsum("nd,nkd->nk", q, rows))
        x = Candidates(remembering(), torch.from_numpy(q), torch.from_numpy(rows), cosines, given)
        kept = np.argsort(places)[len(places) - 9 :]
        return {name: value.numpy()[:, kept] for name, value in values_of(x).items()}

    expected = compute_all(np.arange(9))
    shuffled = np.array([*range(9), -1, -1, -1])[order]
    for name, found in compute_all(shuffled).items():
        assert_allclose(found, expected[name], rtol=1e-3, atol=1e-3, err_msg=name)
