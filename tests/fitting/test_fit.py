"""Fitting a residual adapter where relevance is known: it must be found, and no harm be done."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from feature_task import normalized
from rrra_hf import AdapterConfig, RetrieverAdapter
from rrra_hf.candidates import (
    DocumentFeatures,
    LabelledQueries,
    RetrievedCandidates,
    mine_embeddings,
    read_candidates,
)
from rrra_hf.evaluation import ndcg_per_query, reorder
from rrra_hf.fitting import AnyFitArguments, FitArguments, ResidualFitArguments, cross_fit, fit_adapter
from rrra_hf.fitting.calibration import calibrate
from rrra_hf.fitting.maps import Maps
from rrra_hf.fitting.strength import smallest_within_one_standard_error
from rrra_hf.models.adapter_rrra import READERS

DIM, DOCUMENTS, TRAINING, TEST = 16, 200, 400, 100
QUICK = ResidualFitArguments(max_steps=200, eval_steps=50, hidden_size=32, depth=50, learning_rate=3e-3)

Data = tuple[np.ndarray, LabelledQueries, LabelledQueries]
"""Documents, training queries and test queries."""


@pytest.fixture(scope="module")
def data() -> Data:
    """Queries that point to their document after five of the axes are turned about."""
    rng = np.random.default_rng(0)
    documents = normalized(rng.normal(size=(DOCUMENTS, DIM)))
    turn = np.diag(np.where(np.arange(DIM) < 5, -1.0, 1.0))

    def queries(count: int) -> LabelledQueries:
        rows = rng.integers(0, DOCUMENTS, size=count)
        embeddings = normalized(documents[rows] @ turn + 0.1 * rng.normal(size=(count, DIM)))
        return LabelledQueries(embeddings, [np.array([row]) for row in rows])

    return documents, queries(TRAINING), queries(TEST)


def unfitted(num_classes: int = 1) -> RetrieverAdapter:
    reader = {"kind": "residual", "num_classes": num_classes}
    return RetrieverAdapter(AdapterConfig(embedding_dim=DIM, reader=reader))


def features_of(adapter: RetrieverAdapter, documents: np.ndarray) -> DocumentFeatures:
    return DocumentFeatures.of(adapter.reader, [documents], None)


def log_odds(adapter: RetrieverAdapter, found: RetrievedCandidates, documents: np.ndarray) -> np.ndarray:
    features = features_of(adapter, documents)
    take = documents.__getitem__
    return read_candidates(adapter, found.queries, found.rows, take, features).relevance.numpy()


def quality(
    adapter: RetrieverAdapter, documents: np.ndarray, test: LabelledQueries, depth: int = 50
) -> tuple[float, float]:
    """Return nDCG@10 of test queries: searched (with the adapter's maps), and reranked."""
    mapped_documents = adapter.map_documents(documents)
    mapped = LabelledQueries(adapter.map_queries(test.embeddings), test.positives)
    found = RetrievedCandidates.retrieve(mapped, mapped_documents, depth)
    ranking = torch.from_numpy(log_odds(adapter, found, mapped_documents))
    scores = adapter.combine(torch.from_numpy(found.cosines), ranking).numpy()
    rankings = found.relevant, reorder(found.relevant, scores)
    return tuple(float(ndcg_per_query(ranking, found.num_relevant).mean()) for ranking in rankings)


# -------------------------------------------------------------------- fitting


@pytest.mark.parametrize("objective", ["listwise", "bce", "four_class"])
def test_adapter_learns_a_relevance_that_cosines_miss(data: Data, objective: str) -> None:
    documents, training, test = data
    arguments = replace(QUICK, objective=objective, segment_weight=0.1)
    adapter = fit_adapter(training.embeddings, documents, training.positives, arguments=arguments)
    searched, reranked = quality(adapter, documents, test)
    assert reranked > searched + 0.2
    assert adapter.config.lambda_ > 0


@pytest.mark.parametrize("maps", ["query", "both"])
def test_maps_find_what_the_encoder_missed(data: Data, maps: str) -> None:
    documents, training, test = data
    plain, _ = quality(unfitted(), documents, test)
    arguments = replace(QUICK, maps=maps)
    adapter = fit_adapter(training.embeddings, documents, training.positives, arguments=arguments)
    searched, _ = quality(adapter, documents, test)
    assert searched > plain + 0.1
    assert adapter.query_map is not None
    assert (adapter.document_map is not None) == (maps == "both")
    np.testing.assert_allclose(np.linalg.norm(adapter.map_queries(test.embeddings), axis=1), 1, rtol=1e-5)


def test_development_queries_are_never_ranked_worse_than_without_adapter() -> None:
    rng = np.random.default_rng(1)
    documents = normalized(rng.normal(size=(60, DIM)))
    rows = rng.integers(0, 60, size=80)
    queries = normalized(documents[rows] + 0.5 * rng.normal(size=(80, DIM)))
    # The labels tell nothing: there is nothing to learn, and only harm to be done.
    labels = [[row] for row in rng.permutation(rows)]
    adapter = fit_adapter(queries, documents, labels, arguments=replace(QUICK, maps="query"))
    measured = adapter.config.fit["development"]["nDCG@10"]
    assert measured["adapter"] >= measured["encoder"]


def test_same_seed_same_adapter_and_another_seed_another(data: Data) -> None:
    documents, training, _ = data
    arguments = replace(QUICK, max_steps=20, maps="both")
    first, second, other = (
        fit_adapter(
            training.embeddings, documents, training.positives, arguments=replace(arguments, seed=seed)
        )
        for seed in (0, 0, 1)
    )
    assert first.config == second.config
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name
    assert not torch.equal(first.reader.query_layer.weight, other.reader.query_layer.weight)


def test_fitting_leaves_the_global_random_state_alone(data: Data) -> None:
    documents, training, _ = data
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit_adapter(training.embeddings, documents, training.positives, arguments=replace(QUICK, max_steps=2))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("kind", ["float16", "float64", "long vectors", "read-only"])
def test_embeddings_of_any_kind_are_taken(data: Data, kind: str) -> None:
    documents, training, test = data
    queries = training.embeddings.copy()
    if kind.startswith("float"):
        queries, documents = queries.astype(kind), documents.astype(kind)
    elif kind == "long vectors":
        queries, documents = queries * 7, documents * 3
    else:
        queries.setflags(write=False)
    adapter = fit_adapter(queries, documents, training.positives, arguments=QUICK)
    searched, reranked = quality(adapter, np.asarray(documents, np.float32), test)
    assert reranked > searched + 0.2


def test_a_pool_gives_what_mining_inside_gives(data: Data) -> None:
    documents, training, _ = data
    arguments = replace(QUICK, max_steps=20)
    pool = mine_embeddings(training.embeddings, documents, training.positives, depth=arguments.depth)
    one = fit_adapter(training.embeddings, documents, training.positives, arguments=arguments)
    other = fit_adapter(training.embeddings, documents, pool=pool, arguments=arguments)
    assert torch.equal(one.reader.query_layer.weight, other.reader.query_layer.weight)


def test_one_document_and_two_queries_are_enough_not_to_fail() -> None:
    documents = np.ones((1, 4), dtype=np.float32)
    queries = np.eye(4, dtype=np.float32)[:2]
    adapter = fit_adapter(queries, documents, [[0], [0]], arguments=replace(QUICK, max_steps=2))
    assert np.isfinite(adapter.rerank(queries, np.repeat(documents[None], 2, 0))).all()


@pytest.mark.parametrize("arguments", [FitArguments(), QUICK])
def test_bad_input_to_fitting_is_named(data: Data, arguments: AnyFitArguments) -> None:
    documents, training, _ = data
    queries, positives = training.embeddings, training.positives
    pool = mine_embeddings(queries, documents, positives, depth=5)
    with pytest.raises(ValueError, match="either positives or a pool"):
        fit_adapter(queries, documents, arguments=arguments)
    with pytest.raises(ValueError, match="either positives or a pool"):
        fit_adapter(queries, documents, positives, pool=pool, arguments=arguments)
    with pytest.raises(ValueError, match=r"at least two (training )?queries, got 1"):
        fit_adapter(queries[:1], documents, positives[:1], arguments=arguments)
    with pytest.raises(ValueError, match="positive"):
        fit_adapter(queries[:3], documents, [[0], [], [1]], arguments=arguments)
    with pytest.raises(ValueError, match="query_embeddings"):
        fit_adapter(np.where(queries > 0.5, np.nan, queries), documents, positives, arguments=arguments)
    with pytest.raises(ValueError, match="document_embeddings"):
        fit_adapter(queries, documents[:, :8], positives, arguments=arguments)
    with pytest.raises(ValueError, match=f"query_embeddings must have the pool's {TRAINING} rows, got 10"):
        fit_adapter(queries[:10], documents, pool=pool, arguments=arguments)
    with pytest.raises(ValueError, match=f"document_embeddings must have the pool's {DOCUMENTS} rows"):
        fit_adapter(queries, documents[:10], pool=pool, arguments=arguments)
    broken = documents.copy()
    broken[3, 3] = np.inf
    with pytest.raises(ValueError, match="document_embeddings"):
        fit_adapter(queries, broken, pool=pool, arguments=arguments)


# -------------------------------------------------------------------- cross-fitting


def test_cross_fitting_finds_hidden_positives_that_fitting_on_all_labels_denies(data: Data) -> None:
    documents, _, _ = data
    rng = np.random.default_rng(2)
    turn = np.diag(np.where(np.arange(DIM) < 5, -1.0, 1.0))
    # Every query has two relevant documents that are near each other; one of them is not labelled.
    documents = normalized(np.concatenate([documents, documents + 0.05 * rng.normal(size=documents.shape)]))
    rows = np.tile(np.arange(DOCUMENTS), 2)
    queries = normalized(documents[rows] @ turn + 0.1 * rng.normal(size=(len(rows), DIM)))
    pool = mine_embeddings(queries, documents, [[row] for row in rows], depth=200)
    pool = cross_fit(pool, queries, documents, arguments=QUICK, folds=3)
    hidden = pool.candidates == (rows + DOCUMENTS)[:, None]
    probability = pool.probability
    assert hidden.sum() > 100
    assert probability[hidden].mean() > 10 * probability[~hidden].mean()


def test_cross_fitted_probabilities_cover_exactly_the_candidates(data: Data) -> None:
    documents, training, _ = data
    short = mine_embeddings(training.embeddings[:40], documents[:30], [[i % 30] for i in range(40)], depth=50)
    arguments = replace(QUICK, max_steps=5)
    crossed = cross_fit(short, training.embeddings[:40], documents[:30], arguments=arguments, folds=2)
    assert np.array_equal(np.isnan(crossed.probability), crossed.candidates < 0)
    known = crossed.probability[crossed.candidates >= 0]
    assert ((known >= 0) & (known <= 1)).all()
    assert short.probability is None
    with pytest.raises(ValueError, match="folds must lie between 2 and the number of queries, 40; got 1"):
        cross_fit(short, training.embeddings[:40], documents[:30], folds=1)


# -------------------------------------------------------------------- calibration and lambda


@pytest.mark.parametrize("num_classes", [1, 4])
def test_calibrated_probabilities_have_the_share_of_labels_as_their_mean(
    data: Data, num_classes: int
) -> None:
    documents, _, test = data
    torch.manual_seed(0)
    adapter = unfitted(num_classes)
    found = RetrievedCandidates.retrieve(test, documents, 50)
    calibrate(adapter, found, documents, features_of(adapter, documents))
    # A property of maximum likelihood with an intercept.
    assert expit(log_odds(adapter, found, documents)).mean() == pytest.approx(found.relevant.mean(), rel=1e-3)


def test_log_odds_that_fall_with_relevance_become_the_share_of_labels(
    data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    documents, _, test = data
    adapter = unfitted()
    found = RetrievedCandidates.retrieve(test, documents, 50)
    cosines = found.cosines
    backwards = replace(found, relevant=cosines <= np.sort(cosines, axis=1)[:, :1])
    calibrate(adapter, backwards, documents, features_of(adapter, documents))
    probability = expit(log_odds(adapter, backwards, documents))
    np.testing.assert_allclose(probability, backwards.relevant.mean(), rtol=0.01)
    assert "don't rise" in caplog.text


def test_the_harmless_choice_is_taken_unless_a_gain_is_clear() -> None:
    base = np.array([0.5, 0.5, 0.5, 0.5])
    noise, gain = np.array([0.9, 0.1, 0.6, 0.5]), base + 0.1
    assert smallest_within_one_standard_error([0.0, 1.0], np.stack([base, noise])) == 0
    assert smallest_within_one_standard_error([0.0, 1.0], np.stack([base, gain])) == 1
    assert smallest_within_one_standard_error([0.0, 1.0, 2.0], np.stack([base, gain, gain])) == 1
    with pytest.raises(ValueError, match="ascend"):
        smallest_within_one_standard_error([1.0, 0.0], np.stack([base, gain]))
    assert all(reader.strengths[0] == 0 for reader in READERS.values())


@given(st.integers(0, 1000), st.integers(2, 6), st.integers(1, 20))
def test_the_chosen_strength_is_never_worse_than_the_first_on_average(
    seed: int, strengths: int, queries: int
) -> None:
    measured = np.random.default_rng(seed).random((strengths, queries))
    chosen = smallest_within_one_standard_error(list(range(strengths)), measured)
    assert chosen == 0 or measured[chosen].mean() >= measured[0].mean()


def test_maps_shrink_to_the_identity() -> None:
    maps = Maps(torch.diag(torch.tensor([3.0, 1.0])), None)
    assert torch.equal(maps.shrunk(0.0).query, torch.eye(2))
    assert torch.equal(maps.shrunk(0.5).query, torch.diag(torch.tensor([2.0, 1.0])))
    x = np.array([[0.0, 2.0]], dtype=np.float32)
    assert maps.map_documents(x) is x
    assert maps.map_queries(x).tolist() == [[0.0, 1.0]]


def test_the_length_of_embeddings_has_no_effect(data: Data) -> None:
    documents, training, test = data
    lengths = np.random.default_rng(1).uniform(0.5, 5.0, size=(DOCUMENTS, 1)).astype(np.float32)
    short, long = (
        fit_adapter(scale * training.embeddings, vectors, training.positives, arguments=QUICK)
        for scale, vectors in ((1.0, documents), (3.0, lengths * documents))
    )
    assert long.config.lambda_ == short.config.lambda_
    assert long.config.temperature == pytest.approx(short.config.temperature, rel=1e-2)
    found = [
        adapter.probability(test.embeddings[:9], documents[None].repeat(9, 0)) for adapter in (short, long)
    ]
    np.testing.assert_allclose(*found, atol=1e-2)
