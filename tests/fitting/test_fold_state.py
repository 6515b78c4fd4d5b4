"""What training queries teach: their maps, their memory, and the features of the documents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from feature_task import DIM, HALF, PRESET, Task, directions
from rrra_hf.candidates import DocumentFeatures
from rrra_hf.candidates.words import shared_words
from rrra_hf.fitting import fold_state as fold_state_module
from rrra_hf.fitting.fold_state import fold_state
from rrra_hf.fitting.maps import Maps
from rrra_hf.models.features_rrra import RANKING, RELEVANCE


def test_queries_with_several_answers_are_remembered_with_their_mean() -> None:
    task = Task()
    labelled = task.queries(30, answers=3)
    state = fold_state(labelled, task.documents, None, PRESET, task.words)
    memory = state.reader.memory
    answers = np.stack([task.documents[rows].mean(0) for rows in labelled.positives])
    assert_allclose(memory.answers.float(), answers, atol=HALF)
    assert_allclose(memory.queries.float(), labelled.embeddings, atol=HALF)
    documents = np.unique(np.concatenate(labelled.positives))
    assert_array_equal(state.remembered, documents)
    assert_allclose(memory.documents.float(), task.documents[documents], atol=HALF)
    assert {(q, documents[d]) for q, d in memory.pairs.numpy()} == {
        (q, row) for q, rows in enumerate(labelled.positives) for row in rows
    }
    assert (state.reader.ranking, state.reader.relevance) == (list(PRESET.features), list(RELEVANCE))


def test_memory_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task()
    training = task.queries(60)
    monkeypatch.setattr(fold_state_module, "MEMORY", 20)
    memory = fold_state(training, task.documents, None, PRESET, task.words).reader.memory
    assert (len(memory.queries), len(memory.answers), len(memory.pairs)) == (20, 20, 20)
    # Each remembered query has its own answer still.
    remembered = (memory.queries.float().numpy() @ training.embeddings.T).argmax(1)
    assert len(np.unique(remembered)) == 20
    answers = task.documents[[training.positives[row][0] for row in remembered]]
    assert_allclose(memory.answers.float(), answers, atol=HALF)


def test_without_features_of_labels_nothing_is_remembered() -> None:
    task = Task()
    arguments = replace(PRESET, features=tuple(RANKING))
    state = fold_state(task.queries(9), task.documents, None, arguments, task.words)
    assert not state.reader.remembers and len(state.remembered) == 0
    assert state.features.statics.shape == (120, 0)


@pytest.mark.parametrize("both", [True, False])
def test_everything_is_mapped(both: bool) -> None:
    matrices = [torch.from_numpy(np.eye(DIM) + 0.2 * directions(DIM, DIM, seed=s)).float() for s in (1, 2)]
    maps = Maps(matrices[0], matrices[1] if both else None)
    task = Task()
    labelled, unseen = task.queries(12), task.queries(5)
    state = fold_state(labelled, task.documents, maps, PRESET, task.words)
    documents, queries = maps.map_documents(task.documents), maps.map_queries(labelled.embeddings)
    assert_allclose(state.documents, documents, atol=1e-5)
    assert_allclose(state.reader.memory.queries.float(), queries, atol=HALF)
    answers = documents[[rows[0] for rows in labelled.positives]]
    assert_allclose(state.reader.memory.answers.float(), answers, atol=HALF)
    mapped = state.mapped(unseen)
    assert_allclose(mapped.embeddings, maps.map_queries(unseen.embeddings), atol=1e-5)
    assert mapped.words is unseen.words and mapped.positives is unseen.positives
    found = state.retrieve(mapped, 10)
    cosines = mapped.embeddings @ documents.T
    assert_allclose(found.cosines, np.take_along_axis(cosines, found.rows, axis=1), atol=1e-5)
    features = DocumentFeatures.of(state.reader, [documents], task.words)
    assert_allclose(state.features.statics, features.statics, atol=1e-5)


def test_features_are_those_of_words_and_of_labels() -> None:
    task = Task()
    state = fold_state(task.queries(20), task.documents, None, PRESET, task.words)
    unseen = task.queries(4)
    rows = np.random.default_rng(0).permutation(120)[:20].reshape(4, 5)
    found = state.candidate_features(unseen, rows, np.array([0, 1, 2, 3]))
    assert found.shape == (4, 5, len(state.reader.names))
    of = {name: found[..., place].numpy() for place, name in enumerate(state.reader.names)}
    scores, coverage = shared_words(task.words, unseen.words, rows)
    assert_allclose(of["raw_bm25"], scores, rtol=1e-5)
    assert_allclose(of["coverage"], coverage, rtol=1e-5)
    assert (of["has_labelled"] == 1).all()
    nearest = state.reader.memory.recall(torch.from_numpy(unseen.embeddings)).nearest
    assert_allclose(of["nearest_query"], np.repeat(nearest[:, None], 5, axis=1), rtol=1e-5)
    without = fold_state(task.queries(20), task.documents, None, PRESET, None)
    assert without.retrieve(unseen, 10).rows.shape == (4, 10)
    names = without.reader.names
    assert (without.candidate_features(unseen, rows)[..., names.index("raw_bm25")] == 0).all()
