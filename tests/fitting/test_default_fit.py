"""Without arguments, every way to fit may use maps on both sides and every feature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from feature_task import EVERYTHING, Task, keep_everything
from rrra_hf import RetrieverAdapter, RRRAModel, fit_model
from rrra_hf.candidates import LabelledQueries, mine_embeddings
from rrra_hf.data import Collection
from rrra_hf.fitting import FitArguments, cross_fit, fit_adapter
from rrra_hf.models.reader_rrra import FeatureReader

pytestmark = pytest.mark.usefixtures("quick")


def assert_default(adapter: RetrieverAdapter) -> None:
    assert isinstance(adapter.reader, FeatureReader)
    assert adapter.reader.ranking == list(EVERYTHING)
    assert adapter.config.fit["arguments"] == FitArguments().to_dict()


@pytest.mark.parametrize("words", [True, False])
def test_an_adapter(
    task: Task, training: LabelledQueries, words: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_everything(monkeypatch)
    given = {"query_words": training.words, "document_words": task.words} if words else {}
    adapter = fit_adapter(training.embeddings, task.documents, training.positives, **given)
    assert_default(adapter)
    assert adapter.query_map is not None and adapter.document_map is not None


def test_a_model(tiny_bert: Path, feature_collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_everything(monkeypatch)
    assert_default(fit_model(RRRAModel.from_encoder(tiny_bert), feature_collection).adapter)


@pytest.mark.parametrize("words", [True, False])
def test_a_cross_fit(task: Task, training: LabelledQueries, words: bool) -> None:
    pool = mine_embeddings(training.embeddings, task.documents, training.positives, depth=20)
    given = {"query_words": training.words, "document_words": task.words} if words else {}
    probability = cross_fit(pool, training.embeddings, task.documents, **given).probability
    explicit = cross_fit(pool, training.embeddings, task.documents, arguments=FitArguments(), **given)
    assert_array_equal(explicit.probability, probability)
    assert np.isfinite(probability[pool.candidates >= 0]).all()
