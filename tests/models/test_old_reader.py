"""The reader of format version 2: each feature in closed form, and in context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax

from feature_task import DIM, HALF, VOCABULARY, directions, make_old_adapter, normalized
from rrra_hf import AdapterConfig, RetrieverAdapter
from rrra_hf.models.features_rrra import CandidateFeatures
from rrra_hf.models.memory_rrra import MEMORY_TAU
from rrra_hf.models.reader_v2_rrra import (
    AGREEMENT_TAU,
    NAMES,
    OF_WORDS,
    ContextHead,
    Version2Reader,
    in_context,
)

PAIRS = [(i, i) for i in range(5)]
WITHOUT_WORDS = tuple(name for name in NAMES if name not in OF_WORDS)


def make_reader(
    names: Sequence[str], queries: np.ndarray, documents: np.ndarray, pairs: list[tuple[int, int]]
) -> Version2Reader:
    """Return a reader that remembers labelled pairs."""
    vocabulary = VOCABULARY if set(names) & set(OF_WORDS) else 0
    sizes = len(queries), len(documents), len(pairs), vocabulary
    reader = Version2Reader(queries.shape[1], 0.05, names, *sizes)
    reader.memory.remember(torch.from_numpy(queries), torch.from_numpy(documents), torch.tensor(pairs))
    return reader


def read(reader: Version2Reader, queries: np.ndarray, candidates: np.ndarray, **known: Any) -> np.ndarray:
    """Return the features of candidates."""
    q, c = torch.from_numpy(queries), torch.from_numpy(candidates)
    return reader.features(q, c, torch.einsum("nd,nkd->nk", q, c), CandidateFeatures(**known)).numpy()


def test_memory_is_the_answers_to_similar_queries() -> None:
    queries = np.eye(4, dtype=np.float32)[:2]
    documents = np.eye(4, dtype=np.float32)[1:]
    # The first query has two answers, the second one.
    reader = make_reader(["memory"], queries, documents, [(0, 0), (0, 1), (1, 2)])
    q = normalized(np.array([[1.0, 0.9, 0.3, 0.0]]))
    c = directions(1, 5, 4)
    share = softmax(q[0, :2] / MEMORY_TAU)
    answers = np.stack([documents[:2].mean(0), documents[2]])
    assert_allclose(read(reader, q, c)[..., 0], c @ (share @ answers), atol=HALF)


def test_agreement_is_the_cosine_with_the_other_candidates_of_high_score() -> None:
    reader = make_reader(["agreement"], directions(2, DIM), directions(2, DIM), [(0, 0), (1, 1)])
    q, c = directions(3, DIM, seed=2), directions(3, 6, DIM, seed=3)
    share = softmax(np.einsum("nd,nkd->nk", q, c) / AGREEMENT_TAU, axis=1)
    cosines = np.einsum("nid,njd->nij", c, c)
    cosines[:, np.arange(6), np.arange(6)] = 0
    assert_allclose(read(reader, q, c)[..., 0], np.einsum("nij,nj->ni", cosines, share), atol=1e-5)
    assert_allclose(read(reader, q, c[:, :1])[..., 0], 0, atol=1e-6)


def test_statics_that_are_found_are_those_that_are_computed() -> None:
    queries, documents = directions(12, DIM), directions(8, DIM, seed=1)
    reader = make_reader(list(NAMES), queries, documents, [(i, i % 8) for i in range(12)])
    q, rows = directions(3, DIM, seed=2), np.array([[0, 3, 4], [7, 1, 2], [5, 5, 6]])
    shared = torch.rand(3, 3, dtype=torch.float64)
    statics = reader.document_statics(torch.from_numpy(documents))
    words = {"words": shared, "expansion": 1 - shared}
    computed = read(reader, q, documents[rows], **words)
    found = read(reader, q, documents[rows], **words, statics=statics[rows])
    assert_allclose(found, computed, atol=1e-6)
    assert found.dtype == np.float32
    for name, values in words.items():
        assert_allclose(found[..., list(NAMES).index(name)], values, rtol=1e-6)
    assert_allclose(found[..., 0], np.einsum("nd,nkd->nk", q, documents[rows]), atol=1e-6)


def test_features_are_in_the_order_of_their_names() -> None:
    parts = directions(12, DIM), directions(12, DIM, seed=1), [(i, i) for i in range(12)]
    q, c = directions(2, DIM, seed=2), directions(2, 5, DIM, seed=3)
    everything = read(make_reader(list(WITHOUT_WORDS), *parts), q, c)
    backwards = read(make_reader(list(WITHOUT_WORDS)[::-1], *parts), q, c)
    assert_array_equal(backwards[..., ::-1], everything)


def naive_context(x: np.ndarray) -> np.ndarray:
    rows = []
    for i in range(len(x)):
        others = np.delete(x, i, axis=0)
        before = (x[:, 0] > x[i, 0]).mean()
        rows.append([*x[i], *(x[i] - others.max(0)), *(x[i] - others.mean(0)), before])
    return np.array(rows)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.booleans())
def test_context_is_how_a_candidate_stands_to_the_others(seed: int, k: int, ties: bool) -> None:
    x = np.random.default_rng(seed).normal(size=(2, k, 3)).astype(np.float32)
    x = np.round(x) if ties else x
    found = in_context(torch.from_numpy(x)).numpy()
    assert found.shape == (2, k, 10)
    assert_allclose(found, [naive_context(part) for part in x], atol=1e-5)


def test_context_of_one_candidate_and_of_none() -> None:
    assert in_context(torch.tensor([[[3.0, -2.0]]])).tolist() == [[[3.0, -2.0, 0, 0, 0, 0, 0]]]
    assert in_context(torch.zeros(2, 0, 3)).shape == (2, 0, 10)


def test_equals_at_the_top_are_no_distance_apart() -> None:
    found = in_context(torch.tensor([[[2.0], [2.0], [1.0]]]))[0]
    assert found[:, 1].tolist() == [0, 0, -1]
    assert found[:, 3].tolist() == pytest.approx([0, 0, 2 / 3])


def test_the_head_is_linear_in_standardised_features_at_first() -> None:
    head, x = ContextHead(2, 4), torch.randn(7, 5, 2)
    assert (head(x) == 0).all()
    with torch.no_grad():
        head.mean.fill_(1.0)
        head.deviation.fill_(2.0)
        head.linear.weight.copy_(torch.tensor([[1.0, 2.0]]))
        head.linear.bias.fill_(0.5)
    torch.testing.assert_close(head(x), (x - 1) / 2 @ torch.tensor([1.0, 2.0]) + 0.5)


def test_base_is_the_cosine_before_the_maps_and_both_are_compared_with_what_is_remembered() -> None:
    reader = make_reader(["mapped", "base", "memory"], *(directions(5, DIM, seed=s) for s in (0, 1)), PAIRS)
    matrices = [torch.eye(DIM) + 0.2 * torch.randn(DIM, DIM) for _ in range(2)]
    raw = directions(3, DIM, seed=2), directions(3, 4, DIM, seed=3)
    q, c = (normalized(x @ matrix.T.numpy()) for x, matrix in zip(raw, matrices, strict=True))
    with torch.no_grad():
        reader.memory.query_inverse.copy_(matrices[0].inverse())
        reader.memory.document_inverse.copy_(matrices[1].inverse())
    found = read(reader, q, c)
    assert_allclose(found[..., 0], np.einsum("nd,nkd->nk", q, c), atol=1e-5)
    assert_allclose(found[..., 1], np.einsum("nd,nkd->nk", *raw), atol=1e-4)
    share = softmax(normalized(q + raw[0]) @ reader.memory.queries.float().numpy().T / MEMORY_TAU, axis=1)
    answers = share @ reader.memory.answers.float().numpy()
    assert_allclose(found[..., 2], np.einsum("nd,nkd->nk", answers, c), atol=1e-4)


@pytest.mark.parametrize(
    ("names", "vocabulary", "match"),
    [
        (["mapped", "colour"], 0, "features must be among mapped, base, .*; got colour"),
        ([], 0, "features must be among .*; got None"),
        (["words"], 0, "vocabulary must be positive with words and 0 without, got 0"),
        (["mapped"], 7, "vocabulary must be positive with words and 0 without, got 7"),
    ],
)
def test_readers_that_cannot_be_made_are_named(names: list[str], vocabulary: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Version2Reader(DIM, 0.05, names, 1, 1, 1, vocabulary)


def test_a_reader_of_word_pieces_needs_them() -> None:
    adapter = make_old_adapter(["mapped", "words"])
    assert adapter.reader.reads_word_pieces and not adapter.reads_words
    assert not make_old_adapter(WITHOUT_WORDS).reader.reads_word_pieces
    pairs = directions(2, DIM), directions(2, 3, DIM)
    for method in (adapter.rerank, adapter.probability):
        with pytest.raises(ValueError, match="reads word pieces: give the queries' texts, too"):
            method(*pairs)


def test_an_old_adapter_that_was_not_fitted_changes_no_ranking() -> None:
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM, reader={"kind": "features_v2"}, lambda_=1.0))
    q, c = directions(2, DIM), directions(2, 5, DIM, seed=1)
    cosines = np.einsum("nd,nkd->nk", q, c)
    assert_allclose(adapter.rerank(q, c), cosines / 0.05, rtol=1e-4, atol=1e-4)
    assert_array_equal(adapter.probability(q, c), 0.5)
