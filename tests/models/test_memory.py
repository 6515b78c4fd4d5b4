"""What an adapter remembers of its training pairs, in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax

from feature_task import DIM, HALF, directions
from rrra_hf.models.memory_rrra import HUB_QUERIES, MEMORY_TAU, Memory


def make_memory(queries: np.ndarray, documents: np.ndarray, pairs: list[tuple[int, int]]) -> Memory:
    memory = Memory(queries.shape[1], len(queries), len(documents), len(pairs))
    memory.remember(torch.from_numpy(queries), torch.from_numpy(documents), torch.tensor(pairs))
    return memory


def test_answers_are_the_mean_of_the_documents_of_each_query() -> None:
    documents = np.eye(4, dtype=np.float32)
    memory = make_memory(np.eye(4, dtype=np.float32)[:2] * 3, documents, [(0, 0), (0, 1), (1, 2)])
    assert_array_equal(memory.answers, [[0.5, 0.5, 0, 0], [0, 0, 1, 0]])
    assert_array_equal(memory.queries, np.eye(4)[:2])
    assert memory.sizes() == {"queries": 2, "documents": 4, "pairs": 3}
    assert memory.queries.dtype == torch.float16


@pytest.mark.parametrize("count", [7, 50])
def test_the_thirty_nearest_queries_are_recalled(count: int) -> None:
    queries = directions(count, DIM)
    memory = make_memory(queries, directions(count, DIM, seed=1), [(i, i) for i in range(count)])
    q = directions(3, DIM, seed=2)
    weights, rows, closest = memory.recall(torch.from_numpy(q))
    assert rows.shape == (3, min(30, count))
    for i, query in enumerate(q):
        nearest = np.argsort(-(queries @ query))[:30]
        assert set(rows[i].tolist()) == set(nearest.tolist())
        assert_allclose(weights[i], softmax(queries[rows[i]] @ query / MEMORY_TAU), atol=2 * HALF)
        assert float(closest[i]) == pytest.approx((queries @ query).max(), abs=HALF)


def test_nothing_is_recalled_of_nothing() -> None:
    memory, q = Memory(DIM, 0, 0, 0), torch.from_numpy(directions(3, DIM))
    weights, rows, nearest = memory.recall(q)
    assert weights.shape == rows.shape == (3, 0)
    assert nearest.tolist() == [0, 0, 0]
    assert memory.hubness(q).tolist() == [0, 0, 0]


@pytest.mark.parametrize("count", [3, 40])
def test_hubness_is_the_cosine_of_the_nearest_queries_that_a_document_does_not_answer(count: int) -> None:
    queries, documents = directions(count, DIM), directions(6, DIM, seed=1)
    # Queries of several answers, documents of several queries; the last two documents answer none.
    pairs = [(i, i % 4) for i in range(count)] + [(i, (i + 1) % 4) for i in range(0, count, 2)]
    memory = make_memory(queries, documents[:4], pairs)
    expected = []
    for row, document in enumerate(documents):
        others = [i for i in range(count) if (i, row) not in pairs]
        nearest = np.sort(queries[others] @ document)[::-1][:HUB_QUERIES]
        expected.append(nearest.mean() if len(nearest) else 0.0)
    assert_allclose(memory.hubness(torch.from_numpy(documents)), expected, atol=HALF)


def test_a_document_that_answers_every_query_is_no_hub() -> None:
    queries, documents = directions(5, DIM), directions(1, DIM, seed=1)
    memory = make_memory(queries, documents, [(i, 0) for i in range(5)])
    assert memory.hubness(torch.from_numpy(documents)).tolist() == [0]


def test_hubness_does_not_depend_on_the_blocks_it_is_computed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = torch.from_numpy(directions(20, DIM, seed=1))
    memory = make_memory(directions(15, DIM), documents[:15].numpy(), [(i, i) for i in range(15)])
    whole = memory.hubness(documents)
    monkeypatch.setattr("rrra_hf.models.memory_rrra.BLOCK", 7)
    torch.testing.assert_close(memory.hubness(documents), whole)


def test_new_queries_in_the_same_memory_are_recalled() -> None:
    memory = make_memory(directions(5, DIM), directions(5, DIM, seed=1), [(i, i) for i in range(5)])
    q = torch.from_numpy(directions(2, DIM, seed=2))
    memory.recall(q)
    memory.queries.copy_(q[[0, 1, 0, 1, 0]])
    assert_allclose(memory.recall(q).nearest, 1, atol=HALF)
