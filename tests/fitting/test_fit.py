"""Fitting on embeddings whose relevance is known: an adapter must find it, and never do harm."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rrra_hf import AdapterConfig, RetrieverAdapter
from rrra_hf.candidates import LabelledQueries, mine_embeddings
from rrra_hf.candidates.labelled import CandidateSampler, KnownPositives, RetrievedCandidates
from rrra_hf.candidates.reading import read_candidates
from rrra_hf.evaluation import ndcg_per_query, reorder
from rrra_hf.fitting import FitArguments, cross_fit, fit_adapter
from rrra_hf.fitting.maps import Maps
from rrra_hf.fitting.objectives import (
    four_class_loss,
    listwise_loss,
    pointwise_loss,
    positive_unlabelled_loss,
    segment_loss,
)
from rrra_hf.fitting.strength import smallest_within_one_standard_error
from rrra_hf.fitting.tuning import LAMBDAS, calibrate

DIM, DOCUMENTS, TRAINING, TEST = 16, 200, 400, 100
QUICK = FitArguments(max_steps=200, eval_steps=50, hidden_size=32, depth=50, learning_rate=3e-3)


def normalized(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def task():
    """Queries that point to their document after half of the axes are turned about."""
    rng = np.random.default_rng(0)
    documents = normalized(rng.normal(size=(DOCUMENTS, DIM)))
    turn = np.diag(np.where(np.arange(DIM) < 5, -1.0, 1.0))

    def queries(count):
        rows = rng.integers(0, DOCUMENTS, size=count)
        embeddings = normalized(documents[rows] @ turn + 0.1 * rng.normal(size=(count, DIM)))
        return LabelledQueries(embeddings, [np.array([row]) for row in rows])

    return documents, queries(TRAINING), queries(TEST)


def quality(adapter, documents, test, depth=50):
    """nDCG@10 of test queries: searched (with the adapter's maps), and reranked."""
    mapped_documents = adapter.map_documents(documents)
    mapped = LabelledQueries(adapter.map_queries(test.embeddings), test.positives)
    found = RetrievedCandidates.retrieve(mapped, mapped_documents, depth)
    logits = read_candidates(adapter, found.queries, found.rows, mapped_documents).logits.numpy()
    scores = adapter.combine(torch.from_numpy(found.cosines), torch.from_numpy(logits)).numpy()
    rankings = found.relevant, reorder(found.relevant, scores)
    return tuple(ndcg_per_query(ranking, found.num_relevant).mean() for ranking in rankings)


# -------------------------------------------------------------------- fitting


@pytest.mark.parametrize("objective", ["listwise", "bce", "four_class"])
def test_adapter_learns_a_relevance_that_cosines_miss(task, objective):
    documents, training, test = task
    arguments = replace(QUICK, objective=objective, segment_weight=0.1)
    adapter = fit_adapter(training.embeddings, documents, training.positives, arguments=arguments)
    searched, reranked = quality(adapter, documents, test)
    assert reranked > searched + 0.2
    assert adapter.config.lambda_ > 0


def test_positive_unlabelled_correction_learns_too(task):
    documents, training, test = task
    arguments = replace(QUICK, objective="bce", class_prior=0.05)
    adapter = fit_adapter(training.embeddings, documents, training.positives, arguments=arguments)
    searched, reranked = quality(adapter, documents, test)
    assert reranked > searched + 0.2


@pytest.mark.parametrize("stage1", ["query", "both"])
def test_maps_find_what_the_encoder_missed(task, stage1):
    documents, training, test = task
    plain, _ = quality(RetrieverAdapter(AdapterConfig(embedding_dim=DIM)), documents, test)
    arguments = replace(QUICK, stage1=stage1)
    adapter = fit_adapter(training.embeddings, documents, training.positives, arguments=arguments)
    searched, _ = quality(adapter, documents, test)
    assert searched > plain + 0.1
    assert adapter.query_map is not None
    assert (adapter.document_map is not None) == (stage1 == "both")
    np.testing.assert_allclose(np.linalg.norm(adapter.map_queries(test.embeddings), axis=1), 1, rtol=1e-5)


def test_development_queries_are_never_ranked_worse_than_without_adapter():
    rng = np.random.default_rng(1)
    documents = normalized(rng.normal(size=(60, DIM)))
    rows = rng.integers(0, 60, size=80)
    queries = normalized(documents[rows] + 0.5 * rng.normal(size=(80, DIM)))
    # The labels tell nothing: there is nothing to learn, and only harm to be done.
    labels = [[row] for row in rng.permutation(rows)]
    adapter = fit_adapter(queries, documents, labels, arguments=replace(QUICK, stage1="query"))
    measured = adapter.config.fit["development"]["nDCG@10"]
    assert measured["adapter"] >= measured["encoder"]


def test_same_seed_same_adapter_and_another_seed_another(task):
    documents, training, _ = task
    arguments = replace(QUICK, max_steps=20, stage1="both")
    first, second, other = (
        fit_adapter(
            training.embeddings, documents, training.positives, arguments=replace(arguments, seed=seed)
        )
        for seed in (0, 0, 1)
    )
    assert first.config == second.config
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name
    assert not torch.equal(first.query_layer.weight, other.query_layer.weight)


def test_fitting_leaves_the_global_random_state_alone(task):
    documents, training, _ = task
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit_adapter(training.embeddings, documents, training.positives, arguments=replace(QUICK, max_steps=2))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("kind", ["float16", "float64", "long vectors", "read-only"])
def test_embeddings_of_any_kind_are_taken(task, kind):
    documents, training, test = task
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


def test_a_pool_gives_what_mining_inside_gives(task):
    documents, training, _ = task
    arguments = replace(QUICK, max_steps=20)
    pool = mine_embeddings(training.embeddings, documents, training.positives, depth=arguments.depth)
    one = fit_adapter(training.embeddings, documents, training.positives, arguments=arguments)
    other = fit_adapter(training.embeddings, documents, pool=pool, arguments=arguments)
    assert torch.equal(one.query_layer.weight, other.query_layer.weight)


def test_one_document_and_two_queries_are_enough_not_to_fail():
    documents = np.ones((1, 4), dtype=np.float32)
    queries = np.eye(4, dtype=np.float32)[:2]
    adapter = fit_adapter(queries, documents, [[0], [0]], arguments=replace(QUICK, max_steps=2))
    assert np.isfinite(adapter.rerank(queries, np.repeat(documents[None], 2, 0))).all()


def test_bad_input_to_fitting_is_named(task):
    documents, training, _ = task
    queries, positives = training.embeddings, training.positives
    with pytest.raises(ValueError, match="either positives or a pool"):
        fit_adapter(queries, documents)
    with pytest.raises(ValueError, match="at least two queries, got 1"):
        fit_adapter(queries[:1], documents, positives[:1])
    with pytest.raises(ValueError, match="positive"):
        fit_adapter(queries[:3], documents, [[0], [], [1]])
    with pytest.raises(ValueError, match="query_embeddings"):
        fit_adapter(np.where(queries > 0.5, np.nan, queries), documents, positives)
    with pytest.raises(ValueError, match="document_embeddings"):
        fit_adapter(queries, documents[:, :8], positives)
    pool = mine_embeddings(queries, documents, positives, depth=5)
    with pytest.raises(ValueError, match=f"query_embeddings must have the pool's {TRAINING} rows, got 10"):
        fit_adapter(queries[:10], documents, pool=pool)
    with pytest.raises(ValueError, match=f"document_embeddings must have the pool's {DOCUMENTS} rows"):
        fit_adapter(queries, documents[:10], pool=pool)
    broken = documents.copy()
    broken[3, 3] = np.inf
    with pytest.raises(ValueError, match="document_embeddings"):
        fit_adapter(queries, broken, pool=pool)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "hinge"}, "listwise, bce, four_class, got 'hinge'"),
        ({"stage1": "document"}, "none, query, both"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"tau": 0.0}, "tau must be positive"),
        ({"mined_negatives": -1}, "mined_negatives must not be negative"),
        ({"development_fraction": 1.0}, "development_fraction must lie between 0 and 1"),
        ({"class_prior": 0.1}, "class_prior needs objective='bce'"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        FitArguments(**changes)


def test_the_papers_preset():
    arguments = FitArguments.preset("paper", seed=3)
    assert (arguments.objective, arguments.scoring, arguments.segment_weight) == (
        "four_class",
        "product",
        1.0,
    )
    assert arguments.seed == 3
    with pytest.raises(ValueError, match="default, features, paper, got 'papers'"):
        FitArguments.preset("papers")


# -------------------------------------------------------------------- cross-fitting


def test_cross_fitting_finds_hidden_positives_that_fitting_on_all_labels_denies(task):
    documents, _, _ = task
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


def test_cross_fitted_probabilities_cover_exactly_the_candidates(task):
    documents, training, _ = task
    short = mine_embeddings(training.embeddings[:40], documents[:30], [[i % 30] for i in range(40)], depth=50)
    judged = cross_fit(
        short, training.embeddings[:40], documents[:30], arguments=replace(QUICK, max_steps=5), folds=2
    )
    assert np.array_equal(np.isnan(judged.probability), judged.candidates < 0)
    assert short.probability is None
    with pytest.raises(ValueError, match="folds must lie between 2 and the number of queries, 40; got 1"):
        cross_fit(short, training.embeddings[:40], documents[:30], folds=1)


# -------------------------------------------------------------------- calibration and lambda


def development_set(relevant, cosines):
    n, depth = relevant.shape
    return RetrievedCandidates(
        queries=normalized(np.random.default_rng(0).normal(size=(n, DIM))),
        rows=np.tile(np.arange(depth), (n, 1)),
        cosines=cosines,
        relevant=relevant,
        num_relevant=np.maximum(relevant.sum(axis=1), 1),
    )


@pytest.mark.parametrize("num_classes", [1, 4])
def test_calibrated_probabilities_have_the_share_of_labels_as_their_mean(task, num_classes):
    documents, _, test = task
    torch.manual_seed(0)
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM, num_classes=num_classes))
    found = RetrievedCandidates.retrieve(test, documents, 50)
    calibrate(adapter, found, documents)
    logits = read_candidates(adapter, found.queries, found.rows, documents).logits.numpy()
    # A property of maximum likelihood with an intercept.
    assert (1 / (1 + np.exp(-logits))).mean() == pytest.approx(found.relevant.mean(), rel=1e-3)


def test_logits_that_fall_with_relevance_become_the_share_of_labels(task, caplog):
    documents, _, test = task
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM))
    found = RetrievedCandidates.retrieve(test, documents, 50)
    cosines = found.cosines
    backwards = replace(found, relevant=cosines <= np.sort(cosines, axis=1)[:, :1])
    calibrate(adapter, backwards, documents)
    logits = read_candidates(adapter, backwards.queries, backwards.rows, documents).logits.numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), backwards.relevant.mean(), rtol=0.01)
    assert "do not rise" in caplog.text


def test_the_harmless_choice_is_taken_unless_a_gain_is_clear():
    base = np.array([0.5, 0.5, 0.5, 0.5])
    noise, gain = np.array([0.9, 0.1, 0.6, 0.5]), base + 0.1
    assert smallest_within_one_standard_error([0.0, 1.0], np.stack([base, noise])) == 0
    assert smallest_within_one_standard_error([0.0, 1.0], np.stack([base, gain])) == 1
    assert smallest_within_one_standard_error([0.0, 1.0, 2.0], np.stack([base, gain, gain])) == 1
    with pytest.raises(ValueError, match="ascend"):
        smallest_within_one_standard_error([1.0, 0.0], np.stack([base, gain]))
    assert LAMBDAS[0] == 0


@given(st.integers(0, 1000), st.integers(2, 6), st.integers(1, 20))
def test_the_chosen_strength_is_never_worse_than_the_first_on_average(seed, strengths, queries):
    measured = np.random.default_rng(seed).random((strengths, queries))
    chosen = smallest_within_one_standard_error(list(range(strengths)), measured)
    assert chosen == 0 or measured[chosen].mean() >= measured[0].mean()


def test_maps_shrink_to_the_identity():
    maps = Maps(torch.diag(torch.tensor([3.0, 1.0])), None)
    assert torch.equal(maps.shrunk(0.0).query, torch.eye(2))
    assert torch.equal(maps.shrunk(0.5).query, torch.diag(torch.tensor([2.0, 1.0])))
    x = np.array([[0.0, 2.0]], dtype=np.float32)
    assert maps.map_documents(x) is x
    assert maps.map_queries(x).tolist() == [[0.0, 1.0]]


# -------------------------------------------------------------------- objectives


def test_listwise_loss_in_closed_form():
    logits = torch.tensor([[1.0, 0.0, 5.0]])
    labels = torch.tensor([[1, 0, 0]])
    everything, without_last = torch.tensor([[True] * 3]), torch.tensor([[True, True, False]])
    expected = np.log(np.exp(1) + 1 + np.exp(5)) - 1
    assert listwise_loss(logits, labels, everything).item() == pytest.approx(expected, rel=1e-6)
    assert listwise_loss(logits, labels, without_last).item() == pytest.approx(np.log(1 + np.exp(-1)))


def test_pointwise_loss_weighs_both_classes_alike():
    logits, labels = torch.tensor([[2.0, -1.0, -1.0, -1.0]]), torch.tensor([[1, 0, 0, 0]])
    expected = (np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2
    assert pointwise_loss(logits, labels, torch.ones(1, 4, dtype=torch.bool)).item() == pytest.approx(
        expected
    )


def test_positive_unlabelled_risk_in_closed_form_and_never_negative():
    mask = torch.ones(1, 2, dtype=torch.bool)
    labels = torch.tensor([[1, 0]])
    softplus = np.log1p(np.exp(1.0))
    # Positive at -1, unlabelled at 1: pi * l(+1 side) + (softplus(1) - pi * softplus(-1)).
    logits = torch.tensor([[-1.0, 1.0]])
    expected = 0.2 * softplus + softplus - 0.2 * np.log1p(np.exp(-1.0))
    assert positive_unlabelled_loss(logits, labels, mask, 0.2).item() == pytest.approx(expected, rel=1e-6)
    # Unlabelled far down, positives far up: the negative part would fall below zero and is cut.
    logits = torch.tensor([[10.0, -10.0]])
    expected = 0.2 * np.log1p(np.exp(-10.0))
    assert positive_unlabelled_loss(logits, labels, mask, 0.2).item() == pytest.approx(expected, rel=1e-4)


def test_without_class_balance_every_pair_weighs_the_same():
    labels, everything = torch.tensor([[1, 0, 0, 0]]), torch.ones(1, 4, dtype=torch.bool)
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    assert pointwise_loss(logits, labels, everything, balanced=False).item() == pytest.approx(expected.item())
    class_logits = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))
    outcome = torch.tensor([0, 2, 3, 3])
    loss = four_class_loss(class_logits, labels, torch.tensor([[1, 1, 0, 0]]).bool(), everything, False)
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(class_logits[0], outcome).item())


def test_four_class_loss_weighs_each_outcome_alike():
    labels, retrieved = torch.tensor([[1, 0, 0, 0]]), torch.tensor([[True, True, False, False]])
    class_logits = torch.zeros(1, 4, 4)
    class_logits[0, 0, 0] = 3.0
    everything = torch.ones(1, 4, dtype=torch.bool)
    certain = np.log(np.exp(3) + 3) - 3
    expected = (certain + 2 * np.log(4)) / 3
    loss = four_class_loss(class_logits, labels, retrieved, everything)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_segment_loss_is_the_distance_to_the_nearest_point():
    q, c = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0])
    for point, expected in (([0.5, 2.0], 4.0), ([3.0, 0.0], 4.0), ([-1.0, 1.0], 2.0), ([0.3, 0.0], 0.0)):
        assert segment_loss(torch.tensor(point), q, c).item() == pytest.approx(expected)
    assert torch.isfinite(segment_loss(c, c, c))


# -------------------------------------------------------------------- candidates


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_drawn_candidates_are_mined_and_other_positives_are_masked(seed):
    rng = np.random.default_rng(seed)
    positives = [rng.choice(20, size=rng.integers(1, 4), replace=False) for _ in range(6)]
    mined = np.stack(
        [np.pad(np.setdiff1d(np.arange(20), p)[:5], (0, 2), constant_values=-1) for p in positives]
    )
    sampler = CandidateSampler(positives, mined, 20, num_mined=3, num_random=4, rng=rng)
    batch = np.array([0, 3, 5])
    drawn = sampler.draw(batch)
    everything = np.concatenate([drawn.own, np.tile(drawn.shared, (3, 1))], axis=1)
    for i, query in enumerate(batch):
        assert drawn.own[i, 0] in positives[query]
        assert set(drawn.own[i, 1:]) <= set(mined[query])
        relevant = np.isin(everything[i], positives[query])
        assert not drawn.mask[i].numpy()[relevant][1:].any()
        assert drawn.mask[i].numpy()[~relevant].all()
    assert drawn.labels.sum(dim=1).tolist() == [1, 1, 1]
    assert drawn.mask[:, 0].all()


def test_a_query_without_candidates_gets_random_documents():
    mined = np.full((1, 3), -1)
    sampler = CandidateSampler([np.array([0])], mined, 50, 8, 0, np.random.default_rng(0))
    own = sampler.draw(np.array([0])).own
    assert own.min() >= 0
    assert len(np.unique(own)) > 2


def test_known_positives_of_every_pair():
    known = KnownPositives([np.array([2]), np.array([0, 1])], num_documents=3)
    pairs = known.contains(np.arange(2)[:, None], np.arange(3)[None])
    assert pairs.tolist() == [[False, False, True], [True, True, False]]
