"""Candidates are read block by block, and the result doesn't depend on the blocks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from scipy.special import expit

from feature_task import DIM, DOCUMENTS, EVERYTHING, Task, disturb, normalized
from retriever_models import make_adapter as make_residual_adapter
from rrra_hf import AdapterConfig, RetrieverAdapter
from rrra_hf.candidates import DocumentFeatures, judge_candidates, mine_embeddings, read_candidates
from rrra_hf.candidates import reading as reading_module
from rrra_hf.candidates.reading import candidate_features, with_probability
from rrra_hf.embeddings import CollectionEmbeddings
from rrra_hf.fitting import FitArguments
from rrra_hf.fitting.fold_state import fold_state
from rrra_hf.indexes import FlatIndex
from rrra_hf.models.adapter_rrra import Reading
from rrra_hf.models.reader_rrra import FeatureReader

KINDS = ["features", "features with words", "residual"]


class Data(NamedTuple):
    """An adapter with random weights, and queries with candidates to read."""

    adapter: RetrieverAdapter
    queries: np.ndarray
    rows: np.ndarray
    documents: np.ndarray
    features: DocumentFeatures
    words: csr_array | None

    def read(self, rows: np.ndarray | None = None, **given: np.ndarray) -> Reading:
        rows, take = self.rows if rows is None else rows, self.documents.__getitem__
        return read_candidates(self.adapter, self.queries, rows, take, self.features, self.words, **given)


@pytest.fixture(params=KINDS)
def data(request: pytest.FixtureRequest) -> Data:
    task = Task()
    training, test = task.queries(40), task.queries(23)
    rows = np.random.default_rng(0).integers(0, DOCUMENTS, size=(23, 9))
    document_words = task.words if "words" in request.param else None
    if request.param == "residual":
        adapter = make_residual_adapter(dim=DIM, lambda_=0.5)
    else:
        state = fold_state(training, task.documents, None, FitArguments(features=EVERYTHING), document_words)
        adapter = disturb(state.adapter)
    features = DocumentFeatures.of(adapter.reader, [task.documents[:50], task.documents[50:]], document_words)
    words = None if document_words is None else test.words
    return Data(adapter, test.embeddings, rows, task.documents, features, words)


def assert_same(found: Reading, expected: Reading) -> None:
    for values, others in zip(found, expected, strict=True):
        assert values.dtype == torch.float32
        assert_allclose(values, others, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_blocks_of_any_size_give_the_same(data: Data, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = data.read()
    assert expected.ranking.shape == expected.relevance.shape == expected.cosines.shape == (23, 9)
    assert np.ptp(expected.relevance) > 0.1
    monkeypatch.setattr(reading_module, "PAIRS_PER_BLOCK", block)
    assert_same(data.read(), expected)
    given = expected.cosines.numpy() - 0.5
    assert_array_equal(data.read(cosines=given).cosines, given)


@pytest.mark.parametrize("data", KINDS[:2], indirect=True)
@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_features_to_fit_on_are_the_same_in_blocks_of_any_size(
    data: Data, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = data.adapter.reader
    assert isinstance(reader, FeatureReader)
    given = reader, data.queries, data.rows, data.documents.__getitem__, data.features, data.words
    expected = candidate_features(*given)
    assert expected.shape == (23, 9, len(reader.names))
    with torch.no_grad():
        ranking = reader.ranking_head(reader.select(expected, reader.ranking))
        torch.testing.assert_close(ranking, data.read().ranking, rtol=1e-3, atol=1e-3)
    monkeypatch.setattr(reading_module, "PAIRS_PER_BLOCK", block)
    torch.testing.assert_close(candidate_features(*given), expected, rtol=1e-4, atol=1e-4)


def test_blocks_are_of_whole_queries_and_no_larger_than_allowed(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[int, ...]] = []

    def take(rows: np.ndarray) -> np.ndarray:
        taken.append(rows.shape)
        return data.documents[rows]

    monkeypatch.setattr(reading_module, "PAIRS_PER_BLOCK", 95)
    read_candidates(data.adapter, data.queries, data.rows, take, data.features, data.words)
    assert taken == [(10, 9), (10, 9), (3, 9)]


def test_embeddings_come_from_an_index_or_an_array(data: Data) -> None:
    index = FlatIndex(DIM)
    index.add(3 * data.documents)
    take = index.reconstruct
    found = read_candidates(data.adapter, data.queries, data.rows, take, data.features, data.words)
    assert_same(found, data.read())


def test_the_whole_is_what_the_adapter_reads_at_once(data: Data) -> None:
    reader, q = data.adapter.reader, torch.from_numpy(data.queries)
    known = data.features.of_candidates(reader, q, data.words, data.rows)
    candidates = data.documents[data.rows]
    expected = data.adapter.read(q, torch.from_numpy(candidates), features=known)
    assert_same(data.read(), expected)
    scores = data.adapter.rerank(data.queries, candidates, features=known)
    found = data.read()
    combined = data.adapter.combine(found.cosines, found.ranking)
    assert_allclose(combined, scores, rtol=1e-4, atol=1e-4)


def test_long_queries_and_other_precisions_are_read_alike(data: Data) -> None:
    documents = data.documents.astype(np.float64)
    queries = 7 * data.queries.astype(np.float64)
    queries.setflags(write=False)
    take = documents.__getitem__
    found = read_candidates(data.adapter, queries, data.rows, take, data.features, data.words)
    assert_same(found, data.read())


@pytest.mark.parametrize("shape", [(0, 9), (0, 0), (23, 0), (23, 1)])
def test_no_query_and_few_candidates_are_no_error(data: Data, shape: tuple[int, int]) -> None:
    n, k = shape
    words = None if data.words is None else data.words[:n]
    few = data._replace(queries=data.queries[:n], words=words)
    assert all(values.shape == shape for values in few.read(data.rows[:n, :k]))


def test_probabilities_are_those_of_mapped_embeddings_and_nan_where_there_is_no_candidate(
    data: Data,
) -> None:
    words = (data.words, data.features.words)
    data.adapter.query_map = torch.nn.Linear(DIM, DIM, bias=False).requires_grad_(False)
    data.adapter.document_map = torch.nn.Linear(DIM, DIM, bias=False).requires_grad_(False)
    candidates = data.rows.copy()
    candidates[::2, 6:] = -1
    given = 2 * data.queries, candidates, 3 * data.documents, *words
    probability = judge_candidates(data.adapter, *given).probability
    assert probability.dtype == np.float32
    assert_array_equal(np.isnan(probability), candidates < 0)

    documents = data.adapter.map_documents(data.documents)
    features = DocumentFeatures.of(data.adapter.reader, [documents], words[1])
    mapped = Data(
        data.adapter, data.adapter.map_queries(data.queries), candidates, documents, features, words[0]
    )
    expected = expit(mapped.read().relevance.numpy())
    assert_allclose(probability[candidates >= 0], expected[candidates >= 0], rtol=1e-4, atol=1e-6)


def test_an_adapter_that_is_not_fitted_changes_no_ranking() -> None:
    task = Task()
    queries, rows = task.queries(5).embeddings, np.tile(np.arange(20), (5, 1))
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM, lambda_=0.5))
    features = DocumentFeatures.of(adapter.reader, [task.documents], None)
    found = read_candidates(adapter, queries, rows, task.documents.__getitem__, features)
    cosines = normalized(queries) @ task.documents[:20].T
    assert_allclose(found.cosines, cosines, atol=1e-5)
    assert_array_equal(found.ranking, 0)
    assert_array_equal(adapter.combine(found.cosines, found.ranking).argsort(), cosines.argsort())
    assert_array_equal(expit(found.relevance), 0.5)


def test_absent_candidates_come_last_and_change_nothing(data: Data) -> None:
    padded = np.pad(data.rows, ((0, 0), (0, 3)), constant_values=-1)
    found, expected = data.read(padded), data.read()
    assert torch.isneginf(found.cosines[:, 9:]).all()
    for values, others in zip(found, expected, strict=True):
        assert_allclose(values[:, :9], others, rtol=1e-3, atol=1e-3)
    for strength in data.adapter.reader.strengths:
        scores = data.adapter.combine(found.cosines, found.ranking, strength)
        assert torch.isneginf(scores[:, 9:]).all() and torch.isfinite(scores[:, :9]).all(), strength


@pytest.mark.parametrize("data", KINDS[:2], indirect=True)
def test_a_labelled_document_tells_of_the_others(data: Data) -> None:
    labelled = np.random.default_rng(1).integers(0, 9, size=23)
    alone, told = data.read(), data.read(labelled=labelled)
    assert_allclose(told.ranking, alone.ranking, rtol=1e-4, atol=1e-4)
    assert not np.allclose(told.relevance, alone.relevance, atol=1e-2)
    positives = [np.array([rows[place], 0]) for rows, place in zip(data.rows, labelled, strict=True)]
    given = data.queries, data.rows, data.documents, data.words, data.features.words
    probability = judge_candidates(data.adapter, *given, positives).probability
    first = np.column_stack([[rows[0] for rows in positives], data.rows])
    with_it = data.read(first, labelled=np.zeros(23, dtype=np.int64)).relevance[:, 1:]
    assert_allclose(probability, expit(with_it.numpy()), rtol=1e-3, atol=1e-5)


def test_probabilities_of_a_pool_are_read_with_its_labels() -> None:
    task = Task()
    labelled = task.queries(20)
    pool = mine_embeddings(labelled.embeddings, task.documents, labelled.positives, depth=5)
    embeddings = CollectionEmbeddings(labelled.embeddings, task.documents, {})
    adapter = RetrieverAdapter.pretrained()
    found = with_probability(pool, adapter, embeddings, labelled.words, task.words)
    given = labelled.embeddings, pool.candidates, task.documents, labelled.words, task.words
    assert_array_equal(found.probability, judge_candidates(adapter, *given, labelled.positives).probability)
    assert not np.allclose(found.probability, judge_candidates(adapter, *given).probability)
    assert pool.probability is None
