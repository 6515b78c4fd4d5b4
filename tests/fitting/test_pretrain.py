"""An adapter that is taught on some collections ranks and judges on another one without any label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from feature_task import (
    DIM,
    PRESET,
    Task,
    encoder_quality,
    fit,
    make_adapter,
    normalized,
    quality,
    rank,
    text_of,
    words_of,
)
from retriever_models import make_adapter as make_residual_adapter
from rrra_hf import RetrieverAdapter
from rrra_hf.candidates import LabelledQueries, RetrievedCandidates, judge_candidates
from rrra_hf.fitting import Lesson, lesson, pretrain
from rrra_hf.fitting import pretrain as pretrain_function
from rrra_hf.fitting.pretrain import inverted
from rrra_hf.models.features_rrra import OF_LABELS, RANKING, RELEVANCE
from rrra_hf.models.reader_rrra import FeatureReader

STEPS = 150


class Collection(Task):
    """A collection whose queries have several relevant documents, which are near each other."""

    def __init__(self, seed: int):
        super().__init__(documents=160, seed=seed)
        centres = np.repeat(self.documents[:40], 4, axis=0)
        self.documents = normalized(centres + 0.6 * self.rng.normal(size=(160, DIM)) / DIM**0.5)
        self.bags = [
            np.concatenate([self.bags[row // 4][:4], self.bags[40 + row // 4][:2]]) for row in range(160)
        ]
        self.words = words_of(self.bags)

    def queries(self, count: int, answers: int = 4) -> LabelledQueries:
        clusters = self.rng.integers(0, 40, size=count)
        rows = [4 * cluster + np.arange(answers) for cluster in clusters]
        noise = 0.9 * self.rng.normal(size=(count, DIM)) / DIM**0.5
        embeddings = normalized(self.documents[4 * clusters] + noise)
        words = [[*self.bags[4 * cluster][:2], self.rng.integers(80)] for cluster in clusters]
        return LabelledQueries(embeddings, rows, self.words.count([text_of(w) for w in words]))


def lesson_of(task: Task, count: int = 60, **options: int) -> Lesson:
    return lesson(task.queries(count), task.documents, task.words, depth=30, **options)


@pytest.fixture(scope="module")
def taught() -> RetrieverAdapter:
    return pretrain([lesson_of(Collection(seed)) for seed in range(4)], steps=STEPS)


def test_a_taught_adapter_ranks_another_collection_better_than_its_encoder(taught: RetrieverAdapter) -> None:
    other = Collection(seed=9)
    test = other.queries(80)
    assert quality(taught, other, test) > encoder_quality(other, test) + 0.05
    assert taught.config.lambda_ == 1.0 and taught.config.embedding_dim is None
    assert not taught.training and not taught.reader.remembers
    assert (taught.reader.ranking, taught.reader.relevance) == (list(RANKING), list(RELEVANCE))
    assert not set(taught.reader.names) & set(OF_LABELS)


def test_its_probability_tells_what_is_relevant(taught: RetrieverAdapter) -> None:
    other = Collection(seed=9)
    test = other.queries(80)
    found, _ = rank(taught, other, test)
    given = test.embeddings, found.rows, other.documents, test.words, other.words
    alone = judge_candidates(taught, *given).probability
    assert average_precision_score(found.relevant.ravel(), alone.ravel()) > found.relevant.mean() + 0.3


def test_the_same_lessons_and_seed_teach_the_same_and_leave_the_global_state_alone() -> None:
    lessons = [lesson_of(Collection(seed), 20) for seed in range(2)]
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = pretrain(lessons, steps=5)
    assert torch.equal(torch.rand(1), expected)
    second, other = (pretrain(lessons, steps=5, seed=seed) for seed in (0, 1))
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())
    assert not torch.equal(first.reader.ranking_head.first.weight, other.reader.ranking_head.first.weight)


def test_what_is_taught_leans_to_the_sum_of_standard_scores() -> None:
    lessons = [lesson_of(Collection(seed), 20) for seed in range(2)]
    reader = pretrain(lessons, steps=0).reader
    assert isinstance(reader, FeatureReader)
    features = lessons[0].features
    cosine, bm25 = (features[..., reader.names.index(name)] for name in ("cosine", "bm25"))
    inputs = reader.select(features, reader.ranking), reader.select(features, reader.relevance)
    near = (cosine.abs() < 4) & (bm25.abs() < 4)  # further ones count as so far
    with torch.no_grad():
        assert torch.allclose(reader.ranking_head(inputs[0])[near], (0.5 * (cosine + bm25))[near], atol=1e-5)
        log_odds = reader.relevance_head(inputs[1])
    shift = log_odds - 0.3 * cosine
    assert torch.allclose(shift[near], shift[near].mean(), atol=1e-5)
    # Nothing was learnt: the mean probability is still one half.
    assert float(log_odds[lessons[0].present].sigmoid().mean()) == pytest.approx(0.5, abs=0.01)


# -------------------------------------------------------------------- lessons


def test_a_lesson_is_of_the_queries_that_find_something() -> None:
    task = Collection(seed=0)
    queries = task.queries(30)
    found = RetrievedCandidates.retrieve(queries, task.documents, 5, task.words)
    kept = found.relevant.any(axis=1)
    made = lesson(queries, task.documents, task.words, depth=5)
    assert made.relevant.tolist() == found.relevant[kept].tolist()
    assert made.present.tolist() == (found.rows[kept] >= 0).tolist()
    assert made.features.shape == made.given_one.shape == (kept.sum(), 5, made.features.shape[-1])
    rows = torch.arange(len(made.known))
    assert made.relevant[rows, made.known].all()
    # Only what compares a candidate with the known one differs.
    names = RetrieverAdapter.pretrained().reader.names
    place = names.index("has_labelled")
    assert (made.features[..., place] == 0).all() and (made.given_one[..., place] == 1).all()
    of_ranking = [names.index(name) for name in RANKING]
    assert torch.equal(made.features[..., of_ranking], made.given_one[..., of_ranking])


def test_a_lesson_without_words_has_none() -> None:
    task = Collection(seed=0)
    made = lesson(task.queries(20), task.documents, None, depth=30)
    names = RetrieverAdapter.pretrained().reader.names
    assert (made.features[..., names.index("bm25")] == 0).all()


def test_large_collections_teach_by_some_of_their_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    module = pretrain_function.__globals__
    monkeypatch.setitem(module, "QUERIES", 7)
    task = Collection(seed=0)
    queries = task.queries(40)
    made, again, other = (lesson(queries, task.documents, task.words, depth=30, seed=s) for s in (0, 0, 1))
    assert len(made.features) <= 7
    assert torch.equal(made.features, again.features)
    assert made.features.shape != other.features.shape or not torch.equal(made.features, other.features)


def test_a_collection_that_finds_nothing_is_refused() -> None:
    task = Task()
    labelled = task.queries(3)
    cosines = labelled.embeddings @ task.documents.T
    far = labelled._replace(positives=[np.array([row]) for row in cosines.argmin(axis=1)], words=None)
    with pytest.raises(ValueError, match="queries must find relevant documents, none does"):
        lesson(far, task.documents, None, depth=5)


# -------------------------------------------------------------------- what comes of it


@pytest.mark.usefixtures("quick")
def test_a_fit_starts_from_an_adapter_that_is_given(taught: RetrieverAdapter) -> None:
    other = Collection(seed=9)
    few, test = other.queries(3), other.queries(20)
    adapter = fit(other, few, PRESET, start=taught)
    (_, scores), (_, expected) = (rank(one, other, test) for one in (adapter, taught))
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    (_, without) = rank(fit(other, few, PRESET), other, test)
    assert not np.allclose(scores, without, atol=1e-2)


@pytest.mark.parametrize("start", [make_adapter(), make_residual_adapter(dim=DIM)])
def test_a_fit_starts_from_no_other_adapter(start: RetrieverAdapter) -> None:
    task = Task()
    with pytest.raises(ValueError, match="start must be an adapter that reads features and remembers no"):
        fit(task, task.queries(3), PRESET, start=start)


def test_a_collection_is_turned_round() -> None:
    embeddings, documents = np.eye(4, dtype=np.float32), 2 * np.eye(4, dtype=np.float32)[:3]
    positives = [np.array([0, 2]), np.array([2]), np.array([1]), np.array([0, 2])]
    texts = ["red fish", "blue fish", "whale", "herring"], ["fish and whale", "a whale", "red herring"]
    asking, searched, words = inverted(LabelledQueries(embeddings, positives), documents, *texts)
    # Documents 0 and 2 are relevant to several queries.
    assert [rows.tolist() for rows in asking.positives] == [[0, 3], [0, 1, 3]]
    np.testing.assert_array_equal(asking.embeddings, documents[[0, 2]])
    np.testing.assert_array_equal(searched, embeddings)
    assert len(words) == 4
    found = words.search(asking.words, 4)[1]
    assert set(found[0].tolist()) == {0, 1, 2, -1} and set(found[1].tolist()) == {0, 3, -1}


def test_collections_turned_round_teach_the_probability_only() -> None:
    lessons, more = [lesson_of(Collection(0), 20)], [lesson_of(Collection(1), 20)]
    alone, both = pretrain(lessons, steps=5), pretrain(lessons, more, steps=5)
    ranking, relevance = (
        [getattr(one.reader, name).linear.weight for one in (alone, both)]
        for name in ("ranking_head", "relevance_head")
    )
    assert torch.equal(*ranking) and not torch.equal(*relevance)
