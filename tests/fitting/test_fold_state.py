"""What a fold knows: features of its training queries, under its maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import softmax
from torch import Tensor

from feature_task import DIM, HALF, counts_of, directions, normalized
from rrra_hf.candidates import LabelledQueries, weigh_words
from rrra_hf.candidates.words import word_statistics
from rrra_hf.fitting import FitArguments
from rrra_hf.fitting.fold_state import fold_state
from rrra_hf.fitting.maps import Maps
from rrra_hf.models.memory_rrra import MEMORY_TAU


@pytest.mark.parametrize("both", [True, False])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_base_is_the_cosine_before_the_maps(both: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dim = 8

    def matrix() -> Tensor:
        """Return a matrix of condition number 4 at most."""
        left, right = (np.linalg.qr(rng.normal(size=(dim, dim)))[0] for _ in range(2))
        return torch.from_numpy(left @ np.diag(rng.uniform(0.5, 2, dim)) @ right).float()

    queries, documents = (normalized(rng.normal(size=(count, dim))) for count in (4, 9))
    labelled = LabelledQueries(queries, [np.array([i]) for i in range(4)])
    arguments = FitArguments(features=("mapped", "base"))
    mapped = Maps(matrix(), matrix() if both else None)
    state = fold_state(labelled, documents, mapped, arguments, None)
    rows = np.stack([rng.permutation(9)[:5] for _ in queries])
    found = state.candidate_features(state.mapped(labelled), rows).numpy()
    assert_allclose(found[..., 1], np.einsum("nd,nkd->nk", queries, documents[rows]), atol=1e-4)
    after = mapped.map_queries(queries), mapped.map_documents(documents)
    assert_allclose(found[..., 0], np.einsum("nd,nkd->nk", after[0], after[1][rows]), atol=1e-5)
    assert not np.allclose(found[..., 0], found[..., 1], atol=1e-2)


def test_queries_are_similar_before_and_after_the_maps_together() -> None:
    rng = np.random.default_rng(0)
    queries, documents, q = directions(5, DIM), directions(5, DIM, seed=1), directions(3, DIM, seed=2)
    matrix = torch.from_numpy(np.eye(DIM) + 0.2 * rng.normal(size=(DIM, DIM))).float()
    mapped = Maps(matrix, None)
    labelled = LabelledQueries(queries, [np.array([i]) for i in range(5)])
    state = fold_state(labelled, documents, mapped, FitArguments(features=("memory",)), None)

    def both(x: np.ndarray) -> np.ndarray:
        return normalized(x + mapped.map_queries(x))

    share = softmax(both(q) @ both(queries).T / MEMORY_TAU, axis=1)
    unseen = LabelledQueries(mapped.map_queries(q), labelled.positives[:3])
    found = state.candidate_features(unseen, np.tile(np.arange(5), (3, 1)))[..., 0]
    assert_allclose(found, share @ documents @ documents.T, atol=5 * HALF)


def test_expansion_is_the_cosine_with_the_mean_of_what_is_remembered() -> None:
    queries, documents = directions(2, DIM), directions(4, DIM, seed=1)
    counts = counts_of([[1, 2], [2, 3, 3], [4], [5, 1]])
    labelled = LabelledQueries(queries, [np.array([0, 1]), np.array([2])], counts_of([[7], [8]]))
    arguments = FitArguments(features=("mapped", "expansion"))
    state = fold_state(labelled, documents, None, arguments, counts)
    rows = np.tile(np.arange(4), (2, 1))
    found = state.candidate_features(labelled, rows).numpy()[..., 1]
    idf, length = word_statistics(counts)
    weights = weigh_words(counts, idf, length).toarray()
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    answers = np.stack([weights[[0, 1]].mean(axis=0), weights[2]])
    recalled = softmax(queries @ queries.T / MEMORY_TAU, axis=1)
    assert_allclose(found, recalled @ answers @ weights.T, atol=5e-3)
    assert np.ptp(found) > 0.3
