"""Without arguments, every way to fit fits maps on both sides, and heads that read features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from feature_task import Task
from rrra_hf import RetrieverAdapter, RRRAModel, fit_model
from rrra_hf.candidates import LabelledQueries, mine_embeddings
from rrra_hf.data import Collection
from rrra_hf.fitting import FitArguments, cross_fit, fit_adapter, fold_state
from rrra_hf.fitting import features as fitting_features
from rrra_hf.fitting.maps import Maps
from rrra_hf.models.features_rrra import FEATURES
from rrra_hf.models.heads_rrra import Head
from rrra_hf.models.reader_rrra import WITHOUT_WORDS, FeatureReader

pytestmark = pytest.mark.usefixtures("quick")


def assert_default(adapter: RetrieverAdapter, names: tuple[str, ...]) -> None:
    assert isinstance(adapter.reader, FeatureReader)
    assert adapter.reader.names == list(names)
    assert adapter.query_map is not None
    assert adapter.document_map is not None
    assert adapter.config.fit["arguments"] == FitArguments().to_dict()


@pytest.mark.parametrize("words", [True, False])
def test_an_adapter(task: Task, training: LabelledQueries, words: bool) -> None:
    given = {"query_words": training.words, "document_words": task.words} if words else {}
    adapter = fit_adapter(training.embeddings, task.documents, training.positives, **given)
    assert_default(adapter, tuple(FEATURES) if words else WITHOUT_WORDS)
    assert len(adapter.reader.names) == (7 if words else 5)


def test_a_model(tiny_bert: Path, feature_collection: Collection) -> None:
    model = fit_model(RRRAModel.from_encoder(tiny_bert), feature_collection)
    assert_default(model.adapter, tuple(FEATURES))


@pytest.mark.parametrize("words", [True, False])
def test_a_cross_fit(
    task: Task, training: LabelledQueries, words: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[str]] = []
    made: list[Maps | None] = []
    fit_head, refit = fitting_features.fit_relevance_head, fold_state.refit_maps

    def head_spy(features: Any, relevant: Any, weights: Any, names: list[str], arguments: Any) -> Head:
        read.append(names)
        return fit_head(features, relevant, weights, names, arguments)

    def maps_spy(*given: Any) -> Maps | None:
        made.append(refit(*given))
        return made[-1]

    monkeypatch.setattr(fitting_features, "fit_relevance_head", head_spy)
    monkeypatch.setattr(fold_state, "refit_maps", maps_spy)
    pool = mine_embeddings(training.embeddings, task.documents, training.positives, depth=20)
    given = {"query_words": training.words, "document_words": task.words} if words else {}
    probability = cross_fit(pool, training.embeddings, task.documents, **given).probability
    assert read == [list(FEATURES if words else WITHOUT_WORDS)] * 5
    assert len(made) == 5
    assert all(maps is not None and maps.document is not None for maps in made)
    explicit = cross_fit(pool, training.embeddings, task.documents, arguments=FitArguments(), **given)
    assert_array_equal(explicit.probability, probability)
    assert np.isfinite(probability[pool.candidates >= 0]).all()
