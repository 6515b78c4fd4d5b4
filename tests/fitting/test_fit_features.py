"""What is fitted on features ranks better, is calibrated, and repeats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import average_precision_score

from alike import assert_alike
from feature_task import (
    DIM,
    HALF,
    PRESET,
    Task,
    directions,
    encoder_quality,
    fit,
    normalized,
    quality,
)
from rrra_hf import RetrieverAdapter
from rrra_hf.candidates import (
    DocumentFeatures,
    LabelledQueries,
    RetrievedCandidates,
    candidate_probabilities,
    mine_embeddings,
)
from rrra_hf.fitting import FitArguments, fit_adapter, fold_state, maps
from rrra_hf.models.features_rrra import FEATURES
from rrra_hf.models.reader_rrra import WITHOUT_WORDS


def test_unseen_queries_are_ranked_better_than_by_encoder_and_maps(
    task: Task, test_queries: LabelledQueries, fitted: RetrieverAdapter
) -> None:
    searched, reranked = quality(fitted, task, test_queries)
    assert searched > encoder_quality(task, test_queries) + 0.1
    assert reranked > searched + 0.05
    assert fitted.config.lambda_ in fitted.reader.strengths[1:]
    assert fitted.config.fit["maps"]["steps"] in maps.STOPS
    assert fitted.config.fit["arguments"] == PRESET.to_dict()
    assert fitted.config.fit["data"] == {"queries": 170, "pairs": 170, "documents": 120}
    measured = fitted.config.fit["development"]
    assert measured["nDCG@10"]["adapter"] > measured["nDCG@10"]["encoder"]
    assert measured["queries"] == 30
    assert not fitted.training


def test_probabilities_are_calibrated_on_unseen_queries(
    task: Task, test_queries: LabelledQueries, fitted: RetrieverAdapter
) -> None:
    mapped = test_queries._replace(embeddings=fitted.map_queries(test_queries.embeddings))
    found = RetrievedCandidates.retrieve(mapped, fitted.map_documents(task.documents), 30)
    probability = candidate_probabilities(
        fitted, test_queries.embeddings, found.rows, task.documents, test_queries.words, task.words
    )
    assert probability.mean() == pytest.approx(found.relevant.mean(), rel=0.3)
    assert average_precision_score(found.relevant.ravel(), probability.ravel()) > 0.5


def test_a_fitted_adapter_ranks_the_same_from_its_folder(
    task: Task, test_queries: LabelledQueries, fitted: RetrieverAdapter, tmp_path: Path
) -> None:
    fitted.save_pretrained(tmp_path)
    loaded = RetrieverAdapter.from_pretrained(tmp_path)
    rows = np.tile(np.arange(20), (100, 1))
    documents = fitted.map_documents(task.documents)
    assert_array_equal(loaded.map_documents(task.documents), documents)
    queries = loaded.map_queries(test_queries.embeddings)
    scores = []
    for adapter in (fitted, loaded):
        made = DocumentFeatures.of(adapter.reader, [documents], task.words)
        known = made.of_candidates(adapter.reader, torch.from_numpy(queries), test_queries.words, rows)
        scores.append(adapter.rerank(queries, documents[rows], features=known))
        scores.append(adapter.probability(queries, documents[rows], features=known))
    assert_alike(scores[0], scores[2])
    assert_alike(scores[1], scores[3])
    assert np.ptp(scores[1]) > 0.1
    assert loaded.config == fitted.config
    settings = dict(loaded.config.fit["arguments"])
    assert settings.pop("kind") == "features"
    assert FitArguments(**settings) == PRESET


@pytest.mark.parametrize("sides", ["none", "query", "both"])
@pytest.mark.parametrize("words", [True, False])
@pytest.mark.usefixtures("quick")
def test_every_choice_of_maps_is_fitted_with_and_without_words(
    task: Task, training: LabelledQueries, test_queries: LabelledQueries, sides: str, words: bool
) -> None:
    given = {} if words else {"query_words": None, "document_words": None}
    adapter = fit(task, training, replace(PRESET, maps=sides), **given)
    assert adapter.reader.names == list(FEATURES if words else WITHOUT_WORDS)
    assert (adapter.query_map is not None) == (sides != "none")
    assert (adapter.document_map is not None) == (sides == "both")
    for side, linear_map in (("query", adapter.query_map), ("document", adapter.document_map)):
        inverse = getattr(adapter.reader.memory, f"{side}_inverse")
        if linear_map is None:
            assert torch.equal(inverse, torch.eye(DIM))
        else:
            torch.testing.assert_close(inverse @ linear_map.weight, torch.eye(DIM), rtol=0, atol=1e-4)
    searched, reranked = quality(adapter, task, test_queries)
    if sides == "none":
        assert searched == encoder_quality(task, test_queries)
    assert np.isfinite(reranked)


@pytest.mark.usefixtures("quick")
def test_labels_that_tell_nothing_do_no_harm_to_development_queries(task: Task) -> None:
    labelled = Task(seed=3).queries(60)
    labels = [labelled.positives[row] for row in np.random.default_rng(0).permutation(60)]
    development = task.queries(20)
    adapter = fit(task, labelled._replace(positives=labels), PRESET, development=development)
    measured = adapter.config.fit["development"]
    assert measured["queries"] == 20
    assert measured["nDCG@10"]["adapter"] >= measured["nDCG@10"]["encoder"]
    searched, reranked = quality(adapter, task, development)
    assert measured["nDCG@10"]["encoder"] == pytest.approx(encoder_quality(task, development), abs=1e-6)
    assert searched >= encoder_quality(task, development) - 1e-6
    assert reranked >= searched - 1e-6
    assert searched == pytest.approx(measured["nDCG@10"]["maps"], abs=1e-6)
    assert reranked == pytest.approx(measured["nDCG@10"]["adapter"], abs=1e-6)


@pytest.mark.usefixtures("quick")
def test_same_seed_same_adapter_another_seed_another_and_the_global_state_is_left_alone(
    task: Task, training: LabelledQueries
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = fit(task, training, PRESET)
    assert torch.equal(torch.rand(1), expected)
    second, other = (fit(task, training, replace(PRESET, seed=seed)) for seed in (0, 1))
    assert first.config == second.config
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert not torch.equal(first.reader.ranking_head.hidden.weight, other.reader.ranking_head.hidden.weight)


@pytest.mark.parametrize("kind", ["float16", "long vectors", "memory map"])
@pytest.mark.usefixtures("quick")
def test_embeddings_of_any_kind_are_taken(
    task: Task, training: LabelledQueries, kind: str, tmp_path: Path
) -> None:
    queries, documents = training.embeddings, task.documents
    expected = fit(task, training, PRESET)
    if kind == "float16":
        queries, documents = queries.astype(np.float16), documents.astype(np.float16)
    elif kind == "long vectors":
        queries, documents = 7 * queries, 4 * documents
    else:
        for name, values in (("queries", queries), ("documents", documents)):
            values.tofile(tmp_path / name)
        queries, documents = (
            np.memmap(tmp_path / name, dtype=np.float32, mode="r", shape=values.shape)
            for name, values in (("queries", queries), ("documents", documents))
        )
    adapter = fit_adapter(
        queries,
        documents,
        training.positives,
        arguments=PRESET,
        query_words=training.words,
        document_words=task.words,
    )
    if kind == "memory map":
        assert all(torch.equal(v, expected.state_dict()[k]) for k, v in adapter.state_dict().items())
    x = expected.map_queries(training.embeddings), adapter.map_queries(training.embeddings)
    assert (x[0] * x[1]).sum(1).min() > 0.99


@pytest.mark.usefixtures("quick")
def test_a_part_of_the_training_queries_is_held_out_and_not_remembered(
    task: Task, training: LabelledQueries
) -> None:
    held_out = fit(task, training, replace(PRESET, development_fraction=0.25))
    assert held_out.config.reader["queries"] == 150
    assert held_out.config.fit["development"]["queries"] == 50
    everything = fit(task, training, PRESET, development=task.queries(10))
    assert everything.config.reader["queries"] == 200


@pytest.mark.usefixtures("quick")
def test_queries_with_several_answers_are_remembered_with_their_mean(task: Task) -> None:
    labelled = task.queries(30, answers=3)
    adapter = fit(task, labelled, replace(PRESET, maps="none"), development=task.queries(10))
    assert adapter.config.reader["pairs"] == 90
    answers = np.stack([task.documents[rows].mean(0) for rows in labelled.positives])
    assert_allclose(adapter.reader.memory.answers.float(), answers, atol=HALF)
    assert_allclose(adapter.reader.memory.queries.float(), labelled.embeddings, atol=HALF)
    labelled_documents = np.unique(np.concatenate(labelled.positives))
    pairs = adapter.reader.memory.pairs.numpy()
    assert_allclose(adapter.reader.memory.documents.float(), task.documents[labelled_documents], atol=HALF)
    assert {(q, labelled_documents[d]) for q, d in pairs} == {
        (q, row) for q, rows in enumerate(labelled.positives) for row in rows
    }


@pytest.mark.usefixtures("quick")
def test_memory_is_capped(task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_state, "MEMORY", 20)
    adapter = fit(task, training, replace(PRESET, maps="none"), development=task.queries(10))
    memory = adapter.reader.memory
    assert (len(memory.queries), len(memory.answers), len(memory.pairs)) == (20, 20, 20)
    # Each remembered query has its own answer still.
    cosines = memory.queries.float().numpy() @ training.embeddings.T
    remembered = cosines.argmax(1)
    assert len(np.unique(remembered)) == 20
    answers = task.documents[[training.positives[row][0] for row in remembered]]
    assert_allclose(memory.answers.float(), answers, atol=HALF)


@pytest.mark.usefixtures("quick")
def test_a_pool_gives_what_positives_give(task: Task, training: LabelledQueries) -> None:
    pool = mine_embeddings(training.embeddings, task.documents, training.positives, depth=30)
    by_pool = fit_adapter(
        training.embeddings,
        task.documents,
        pool=pool,
        arguments=PRESET,
        query_words=training.words,
        document_words=task.words,
    )
    by_positives = fit(task, training, PRESET)
    assert all(torch.equal(v, by_positives.state_dict()[k]) for k, v in by_pool.state_dict().items())


@pytest.mark.parametrize("count", [3, 4, 6])
@pytest.mark.usefixtures("quick")
def test_a_few_queries_and_fewer_documents_than_depth_are_enough(count: int) -> None:
    tiny = Task(documents=5)
    labelled = tiny.queries(count)
    adapter = fit(tiny, labelled, PRESET)
    assert np.isfinite(quality(adapter, tiny, labelled)).all()


@pytest.mark.usefixtures("quick")
def test_two_queries_are_too_few_and_said_to_be() -> None:
    tiny = Task(documents=5)
    with pytest.raises(ValueError, match="at least two training queries that aren't held out, got 1"):
        fit(tiny, tiny.queries(2), PRESET)
    fit(tiny, tiny.queries(2), PRESET, development=tiny.queries(1))


@pytest.mark.usefixtures("quick")
def test_positives_that_are_never_found_teach_nothing_and_a_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rng = np.random.default_rng(0)
    documents = normalized(rng.normal(size=(40, DIM)))
    queries = normalized(documents[:10] + 0.05 * rng.normal(size=(10, DIM)))
    # The labelled document is the farthest one.
    labels = [[row] for row in (queries @ documents.T).argmin(1)]
    arguments = FitArguments(maps="none", depth=5)
    adapter = fit_adapter(queries, documents, labels, arguments=arguments)
    assert "No training query has both a labelled and an unlabelled candidate" in caplog.text
    assert (adapter.reader.ranking_head.linear.weight == 0).all()
    assert adapter.config.lambda_ == 0
    probability = adapter.probability(queries, np.stack([documents[:5]] * 10))
    assert (probability < 0.2).all()


def test_documents_of_training_queries_are_found_again_where_each_has_one_query() -> None:
    rng = np.random.default_rng(0)
    # In clusters, so that labelled documents stand beside others that are not.
    documents = normalized(np.tile(directions(60, DIM), (10, 1)) + 0.08 * rng.normal(size=(600, DIM)))

    def about(rows: np.ndarray) -> np.ndarray:
        return normalized(documents[rows] + 0.12 * rng.normal(size=(len(rows), DIM)))

    training, held_out = np.arange(400), np.arange(400, 480)
    development = LabelledQueries(about(held_out), [[row] for row in held_out])
    queries, again = about(training), about(training)
    found = np.argsort(-again @ documents.T, axis=1)[:, :30]
    first = {"encoder": (found[:, 0] == training).mean()}
    for even_odds in (True, False):
        adapter = fit_adapter(
            queries,
            documents,
            [[row] for row in training],
            development=development,
            arguments=replace(PRESET, maps="none", features=WITHOUT_WORDS, even_odds=even_odds),
        )
        scores = adapter.rerank(again, documents[found])
        first[even_odds] = (found[np.arange(400), scores.argmax(1)] == training).mean()
    assert first[True] >= first["encoder"] - 0.02
    assert first[True] > first[False] + 0.05


def test_words_of_a_wrong_shape_are_named(task: Task, training: LabelledQueries) -> None:
    with pytest.raises(ValueError, match="both query_words and document_words, or neither"):
        fit(task, training, PRESET, document_words=None)
    with pytest.raises(ValueError, match=r"query_words must have shape \(200, 80\), got \(3, 80\)"):
        fit(task, training, PRESET, query_words=training.words[:3])
    with pytest.raises(ValueError, match=r"query_words must have shape \(200, 80\), got \(200, 79\)"):
        fit(task, training, PRESET, query_words=training.words[:, :79])
    with pytest.raises(ValueError, match=r"document_words must have shape \(120, 80\), got \(119, 80\)"):
        fit(task, training, PRESET, document_words=task.words[:119])
    development = task.queries(4)
    with pytest.raises(ValueError, match=r"development must have words of shape \(4, 80\), got None"):
        fit(task, training, PRESET, development=development._replace(words=None))
    with pytest.raises(ValueError, match=r"development must have words of shape \(4, 80\), got \(3, 80\)"):
        fit(task, training, PRESET, development=development._replace(words=development.words[:3]))
