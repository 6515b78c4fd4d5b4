"""Vectors that a database found are reranked as the adapter scores them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from retriever_models import make_adapter, make_reader_of_words
from rrra_hf import RetrieverAdapter
from rrra_hf.retrieval import rerank_vectors

DOCUMENTS, QUERIES, DIM = 120, 50, 16


@pytest.fixture(scope="module")
def documents() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(DOCUMENTS, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def queries(documents: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=(QUERIES, DIM))
    return (documents[:QUERIES] + noise).astype(np.float32)


def test_maps_of_the_adapter_are_applied(documents: np.ndarray, queries: np.ndarray) -> None:
    adapter = make_adapter(dim=DIM, lambda_=0.5, query_map=True, document_map=True)
    rows = np.tile(np.arange(20), (QUERIES, 1))
    found, scores = rerank_vectors(adapter, queries, documents, rows)
    mapped = adapter.map_documents(documents)[rows]
    expected = adapter.rerank(adapter.map_queries(queries), mapped)
    assert_allclose(scores, -np.sort(-expected, axis=1), atol=1e-5)
    assert_array_equal(found, np.argsort(-expected, axis=1, kind="stable"))


def test_blocks_change_nothing(
    documents: np.ndarray, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_adapter(dim=DIM, lambda_=0.5)
    rows = np.tile(np.arange(20), (QUERIES, 1))
    expected = rerank_vectors(adapter, queries, documents, rows)
    monkeypatch.setattr("rrra_hf.candidates.reading.PAIRS_PER_BLOCK", 70)
    found = rerank_vectors(adapter, queries, documents, rows)
    assert_array_equal(found[0], expected[0])
    assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-5)


def test_pretrained_adapter_reranks_without_words(documents: np.ndarray, queries: np.ndarray) -> None:
    rows = np.tile(np.arange(20), (QUERIES, 1))
    found, scores = rerank_vectors(RetrieverAdapter.pretrained(), queries, documents, rows)
    assert_array_equal(np.sort(found, axis=1), rows)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_adapter_that_needs_word_pieces_is_refused(documents: np.ndarray, queries: np.ndarray) -> None:
    with pytest.raises(ValueError, match="adapter reads word pieces"):
        rerank_vectors(make_reader_of_words(DIM), queries[:1], documents, [[0, 1]])


def test_rows_that_are_not_there_are_refused(documents: np.ndarray, queries: np.ndarray) -> None:
    adapter = make_adapter(dim=DIM, lambda_=0.5)
    with pytest.raises(ValueError, match=r"rows must be \(n, k\) for 50 queries, got \(2, 1\)"):
        rerank_vectors(adapter, queries, documents, [[0], [1]])
    for row in (-1, DOCUMENTS):
        with pytest.raises(ValueError, match=r"rows must be in \[0, 120\)"):
            rerank_vectors(adapter, queries[:1], documents, [[row]])
