"""Features beside two embeddings: each in closed form, and in context."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax

from feature_task import DIM, HALF, directions, make_reader, normalized, read
from rrra_hf.models.features_rrra import AGREEMENT_TAU, FEATURES
from rrra_hf.models.heads_rrra import Head, in_context
from rrra_hf.models.memory_rrra import HUB_QUERIES, MEMORY_TAU
from rrra_hf.models.reader_rrra import WITHOUT_WORDS


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


def test_memory_recalls_the_thirty_nearest_queries_only() -> None:
    queries, documents = directions(50, DIM), directions(50, DIM, seed=1)
    reader = make_reader(["memory"], queries, documents, [(i, i) for i in range(50)])
    q, c = directions(3, DIM, seed=2), directions(3, 4, DIM, seed=3)
    expected = []
    for query, candidates in zip(q, c, strict=True):
        nearest = np.argsort(-(queries @ query))[:30]
        share = softmax(queries[nearest] @ query / MEMORY_TAU)
        expected.append(candidates @ (share @ documents[nearest]))
    assert_allclose(read(reader, q, c)[..., 0], expected, atol=HALF)


@pytest.mark.parametrize("count", [3, 40])
def test_hubness_is_the_cosine_of_the_nearest_queries_that_a_document_does_not_answer(count: int) -> None:
    queries, documents = directions(count, DIM), directions(6, DIM, seed=1)
    # Queries of several answers, documents of several queries; the last two documents answer none.
    pairs = [(i, i % 4) for i in range(count)] + [(i, (i + 1) % 4) for i in range(0, count, 2)]
    reader = make_reader(["hubness"], queries, documents[:4], pairs)
    expected = []
    for row, document in enumerate(documents):
        others = [i for i in range(count) if (i, row) not in pairs]
        nearest = np.sort(queries[others] @ document)[::-1][:HUB_QUERIES]
        expected.append(nearest.mean() if len(nearest) else 0.0)
    statics = reader.document_statics(torch.from_numpy(documents))
    assert_allclose(statics[:, 0], expected, atol=HALF)
    assert_allclose(statics[:, 1], 1.0, rtol=1e-5)


def test_a_document_that_answers_every_query_is_no_hub() -> None:
    queries, documents = directions(5, DIM), directions(1, DIM, seed=1)
    reader = make_reader(["hubness"], queries, documents, [(i, 0) for i in range(5)])
    assert reader.document_statics(torch.from_numpy(documents))[0, 0] == 0


def test_statics_do_not_depend_on_the_blocks_they_are_computed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = torch.from_numpy(directions(20, DIM, seed=1))
    reader = make_reader(
        ["hubness"], directions(15, DIM), documents[:15].numpy(), [(i, i) for i in range(15)]
    )
    whole = reader.document_statics(documents)
    monkeypatch.setattr("rrra_hf.models.memory_rrra.BLOCK", 7)
    torch.testing.assert_close(reader.document_statics(documents), whole)


def test_agreement_is_the_cosine_with_the_other_candidates_of_high_score() -> None:
    reader = make_reader(["agreement"], directions(2, DIM), directions(2, DIM), [(0, 0), (1, 1)])
    q, c = directions(3, DIM, seed=2), directions(3, 6, DIM, seed=3)
    share = softmax(np.einsum("nd,nkd->nk", q, c) / AGREEMENT_TAU, axis=1)
    cosines = np.einsum("nid,njd->nij", c, c)
    cosines[:, np.arange(6), np.arange(6)] = 0
    assert_allclose(read(reader, q, c)[..., 0], np.einsum("nij,nj->ni", cosines, share), atol=1e-5)
    assert_allclose(read(reader, q, c[:, :1])[..., 0], 0, atol=1e-6)


def test_statics_that_are_foundare_those_that_are_computed() -> None:
    queries, documents = directions(12, DIM), directions(8, DIM, seed=1)
    reader = make_reader(list(FEATURES), queries, documents, [(i, i % 8) for i in range(12)])
    q, rows = directions(3, DIM, seed=2), np.array([[0, 3, 4], [7, 1, 2], [5, 5, 6]])
    shared = torch.rand(3, 3, dtype=torch.float64)
    statics = reader.document_statics(torch.from_numpy(documents))
    words = {"words": shared, "expansion": 1 - shared}
    computed = read(reader, q, documents[rows], **words)
    found = read(reader, q, documents[rows], **words, statics=statics[rows])
    assert_allclose(found, computed, atol=1e-6)
    assert found.dtype == np.float32
    for name, values in words.items():
        assert_allclose(found[..., list(FEATURES).index(name)], values, rtol=1e-6)
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


def test_a_head_standardises_and_is_linear_at_first() -> None:
    x = torch.randn(7, 5, 3) * torch.tensor([1.0, 20.0, 0.0]) + torch.tensor([0.0, 5.0, 2.0])
    head = Head(3, 4)
    assert (head(x) == 0).all()
    head.standardize(x)
    assert_allclose(head.mean, x.flatten(0, 1).mean(0), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 2.0, 0.0]]))
        head.linear.bias.fill_(0.5)
    rows = x.flatten(0, 1)[:, :2]
    z = (x[..., :2] - rows.mean(0)) / rows.std(0, unbiased=False)
    torch.testing.assert_close(head(x), z @ torch.tensor([1.0, 2.0]) + 0.5, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(head(x)).all()
