"""What is fitted on features ranks better where labels tell more, does no harm, and repeats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from alike import assert_alike
from feature_task import (
    DIM,
    EVERYTHING,
    PRESET,
    Task,
    encoder_quality,
    fit,
    keep_everything,
    normalized,
    quality,
    rank,
)
from rrra_hf import RetrieverAdapter
from rrra_hf.candidates import LabelledQueries, mine_embeddings
from rrra_hf.fitting import FitArguments, fit_adapter
from rrra_hf.fitting import features as fitting_features
from rrra_hf.models.features_rrra import OF_LABELS, RANKING, RELEVANCE


def pretrained_quality(task: Task, test: LabelledQueries) -> float:
    return quality(RetrieverAdapter.pretrained(), task, test)


def test_unseen_queries_are_ranked_better_where_labels_tell_much(
    task: Task, test_queries: LabelledQueries, fitted: RetrieverAdapter
) -> None:
    trained = pretrained_quality(task, test_queries)
    assert trained > encoder_quality(task, test_queries)
    assert quality(fitted, task, test_queries) > trained + 0.05
    assert fitted.reader.remembers and not fitted.training
    assert fitted.config.fit["arguments"] == PRESET.to_dict()
    assert fitted.config.fit["data"] == {"queries": 200, "pairs": 200, "documents": 120}


def test_what_was_measured_on_unseen_queries_is_recorded(
    task: Task, test_queries: LabelledQueries, fitted: RetrieverAdapter
) -> None:
    measured = fitted.config.fit["unseen"]
    assert measured["queries"] == 200
    figures = measured["nDCG@10"]
    assert figures["encoder"] < figures["maps"] < figures["adapter"]
    chosen = [option for option in measured["options"] if option["nDCG@10"] == figures["adapter"]]
    assert (fitted.has_maps, fitted.config.lambda_) in {(o["maps"], o["lambda"]) for o in chosen}
    # What was measured is about what test queries show.
    assert quality(fitted, task, test_queries) == pytest.approx(figures["adapter"], abs=0.08)
    best = max(option["nDCG@10"] for option in measured["options"])
    assert figures["adapter"] > best - 0.03
    heads = [(option["maps"], option["head"]) for option in measured["options"]]
    assert list(dict.fromkeys(heads)) == [
        (mapped, head) for mapped in (False, True) for head in ("pretrained", "started", "own")
    ]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_three_labels_change_no_ranking(seed: int) -> None:
    """The queries lie where the encoder puts them, so no label tells anything that it doesn't know."""
    task = Task(seed=seed)
    task.turn = np.eye(DIM)
    adapter = fit(task, task.queries(3), PRESET)
    trained, test = RetrieverAdapter.pretrained(), task.queries(30)
    assert not adapter.has_maps and not adapter.reader.remembers
    assert adapter.config.lambda_ == 1.0
    (found, scores), (_, expected) = (rank(one, task, test) for one in (adapter, trained))
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    assert_array_equal(np.argsort(-scores, axis=1), np.argsort(-expected, axis=1))
    documents = task.documents[np.maximum(found.rows, 0)]
    assert_alike(adapter.probability(found.queries, documents), trained.probability(found.queries, documents))


@pytest.mark.usefixtures("quick")
def test_labels_that_tell_nothing_do_no_harm_if_development_queries_tell_more(task: Task) -> None:
    labelled = task.queries(60)
    labels = [labelled.positives[row] for row in np.random.default_rng(0).permutation(60)]
    development = task.queries(40)
    adapter = fit(task, labelled._replace(positives=labels), PRESET, development=development)
    measured = adapter.config.fit["unseen"]
    assert measured["nDCG@10"]["adapter"] >= measured["options"][0]["nDCG@10"]
    test = task.queries(40)
    assert quality(adapter, task, test) >= pretrained_quality(task, test) - 0.02


@pytest.mark.usefixtures("quick")
def test_development_queries_count_in_the_choice_and_nothing_is_fitted_on_them(
    task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_everything(monkeypatch)
    development = task.queries(10)
    alone, watched = fit(task, training, PRESET), fit(task, training, PRESET, development=development)
    assert (alone.config.fit["unseen"]["queries"], watched.config.fit["unseen"]["queries"]) == (200, 210)
    assert watched.config.fit["data"]["queries"] == watched.config.reader["queries"] == 200
    for name, value in alone.reader.ranking_head.state_dict().items():
        assert torch.equal(value, watched.reader.ranking_head.state_dict()[name]), name


@pytest.mark.parametrize("sides", ["none", "query", "both"])
@pytest.mark.parametrize("words", [True, False])
@pytest.mark.usefixtures("quick")
def test_every_choice_of_maps_is_fitted_with_and_without_words(
    task: Task,
    training: LabelledQueries,
    test_queries: LabelledQueries,
    sides: str,
    words: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep_everything(monkeypatch)
    given = {} if words else {"query_words": None, "document_words": None}
    adapter = fit(task, training, replace(PRESET, maps=sides), **given)
    assert (adapter.reader.ranking, adapter.reader.relevance) == (list(EVERYTHING), list(RELEVANCE))
    assert (adapter.query_map is not None) == (sides != "none")
    assert (adapter.document_map is not None) == (sides == "both")
    assert np.isfinite(quality(adapter, task, test_queries))


@pytest.mark.usefixtures("quick")
def test_an_adapter_of_some_features_reads_no_others(task: Task, training: LabelledQueries) -> None:
    few = ("cosine", "bm25", "hubness")
    adapter = fit(task, training, replace(PRESET, maps="none", features=few))
    assert set(adapter.reader.ranking) <= set(few)
    assert {option["head"] for option in adapter.config.fit["unseen"]["options"]} == {
        "pretrained",
        "started",
        "own",
    }
    only = fit(task, training, replace(PRESET, maps="none", features=("recalled",)))
    assert only.reader.ranking == ["recalled"]


@pytest.mark.usefixtures("quick")
def test_the_trained_head_without_some_of_its_features_is_judged_as_it_will_rank(
    task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting_features, "_first_within_one_standard_error", lambda options: 0)
    test = task.queries(60)
    adapter = fit(task, training, replace(PRESET, features=("cosine", "best_cosine")), development=test)
    measured = adapter.config.fit["unseen"]["nDCG@10"]["adapter"]
    on_training, on_test = (quality(adapter, task, part) for part in (training, test))
    assert measured == pytest.approx((200 * on_training + 60 * on_test) / 260, abs=1e-6)


# -------------------------------------------------------------------- the same again


@pytest.mark.usefixtures("quick")
def test_same_seed_same_adapter_another_seed_another_and_the_global_state_is_left_alone(
    task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_everything(monkeypatch)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = fit(task, training, PRESET)
    assert torch.equal(torch.rand(1), expected)
    second, other = (fit(task, training, replace(PRESET, seed=seed)) for seed in (0, 1))
    assert first.config == second.config
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert not torch.equal(first.reader.ranking_head.first.weight, other.reader.ranking_head.first.weight)


def test_a_fitted_adapter_ranks_the_same_from_its_folder(
    task: Task, test_queries: LabelledQueries, fitted: RetrieverAdapter, tmp_path: Path
) -> None:
    fitted.save_pretrained(tmp_path)
    loaded = RetrieverAdapter.from_pretrained(tmp_path)
    (found, scores), (again, expected) = (rank(one, task, test_queries) for one in (loaded, fitted))
    assert_array_equal(found.rows, again.rows)
    assert_alike(scores, expected)
    assert loaded.config == fitted.config
    settings = dict(loaded.config.fit["arguments"])
    assert settings.pop("kind") == "features"
    assert FitArguments(**settings) == PRESET


@pytest.mark.parametrize("kind", ["float16", "long vectors", "memory map"])
@pytest.mark.usefixtures("quick")
def test_embeddings_of_any_kind_are_taken(
    task: Task, training: LabelledQueries, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_everything(monkeypatch)
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
    words = {"query_words": training.words, "document_words": task.words}
    adapter = fit_adapter(queries, documents, training.positives, arguments=PRESET, **words)
    if kind == "memory map":
        assert all(torch.equal(v, expected.state_dict()[k]) for k, v in adapter.state_dict().items())
    x = expected.map_queries(training.embeddings), adapter.map_queries(training.embeddings)
    assert (x[0] * x[1]).sum(1).min() > 0.99


@pytest.mark.usefixtures("quick")
def test_a_pool_gives_what_positives_give(task: Task, training: LabelledQueries) -> None:
    pool = mine_embeddings(training.embeddings, task.documents, training.positives, depth=30)
    words = {"query_words": training.words, "document_words": task.words}
    by_pool = fit_adapter(training.embeddings, task.documents, pool=pool, arguments=PRESET, **words)
    by_positives = fit(task, training, PRESET)
    assert all(torch.equal(v, by_positives.state_dict()[k]) for k, v in by_pool.state_dict().items())


# -------------------------------------------------------------------- few queries, and bad ones


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.usefixtures("quick")
def test_a_few_queries_and_fewer_documents_than_depth_are_enough(
    count: int, everything: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if everything:
        keep_everything(monkeypatch)
    tiny = Task(documents=5)
    labelled = tiny.queries(count)
    adapter = fit(tiny, labelled, PRESET)
    assert np.isfinite(quality(adapter, tiny, labelled))


@pytest.mark.usefixtures("quick")
def test_one_query_is_too_few_and_said_to_be() -> None:
    tiny = Task(documents=5)
    with pytest.raises(ValueError, match="at least two training queries, got 1"):
        fit(tiny, tiny.queries(1), PRESET)
    with pytest.raises(ValueError, match="at least two training queries, got 1"):
        fit(tiny, tiny.queries(1), PRESET, development=tiny.queries(5))


@pytest.mark.usefixtures("quick")
def test_positives_that_are_never_found_teach_nothing_and_a_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rng = np.random.default_rng(0)
    documents = normalized(rng.normal(size=(40, DIM)))
    queries = normalized(documents[:10] + 0.05 * rng.normal(size=(10, DIM)))
    # The labelled document is the farthest one.
    labels = [[row] for row in (queries @ documents.T).argmin(1)]
    adapter = fit_adapter(queries, documents, labels, arguments=FitArguments(maps="none", depth=5))
    assert "No training query has both a labelled and an unlabelled candidate" in caplog.text
    trained, candidates = RetrieverAdapter.pretrained(), np.stack([documents[:5]] * 10)
    assert_alike(adapter.rerank(queries, candidates), trained.rerank(queries, candidates))
    assert_alike(adapter.probability(queries, candidates), trained.probability(queries, candidates))


def test_words_of_a_wrong_shape_are_named(task: Task, training: LabelledQueries) -> None:
    with pytest.raises(ValueError, match="both query_words and document_words, or neither"):
        fit(task, training, PRESET, document_words=None)
    with pytest.raises(ValueError, match=r"query_words must have shape \(200, 80\), got \(3, 80\)"):
        fit(task, training, PRESET, query_words=training.words[:3])
    with pytest.raises(ValueError, match=r"query_words must have shape \(200, 80\), got \(200, 79\)"):
        fit(task, training, PRESET, query_words=training.words[:, :79])
    with pytest.raises(ValueError, match="document_words must be of 120 documents, got 5"):
        fit(task, training, PRESET, document_words=Task(documents=5).words)
    development = task.queries(4)
    with pytest.raises(ValueError, match=r"development must have words of shape \(4, 80\), got None"):
        fit(task, training, PRESET, development=development._replace(words=None))
    with pytest.raises(ValueError, match=r"development must have words of shape \(4, 80\), got \(3, 80\)"):
        fit(task, training, PRESET, development=development._replace(words=development.words[:3]))


def test_the_default_reads_everything() -> None:
    assert FitArguments().features == (*RANKING, *OF_LABELS)
