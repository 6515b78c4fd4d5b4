"""A model is fitted on its own words."""

from __future__ import annotations

import pytest
from numpy.testing import assert_array_equal

from rrra_hf import RRRAModel
from rrra_hf.candidates import count_words
from rrra_hf.candidates.words import word_statistics
from rrra_hf.data import Collection
from rrra_hf.models.features_rrra import FEATURES


def test_a_model_is_fitted_on_its_own_words(feature_model: RRRAModel, feature_collection: Collection) -> None:
    adapter = feature_model.adapter
    assert adapter.reader.names == list(FEATURES)
    assert adapter.config.reader["queries"] == 40
    assert adapter.config.fit["development"]["queries"] == 10
    assert adapter.config.fit["data"]["collection"] == feature_collection.name
    counts = count_words(feature_model.to_sentence_transformer(), feature_collection.document_texts)
    idf, length = word_statistics(counts)
    assert_array_equal(adapter.reader.memory.idf, idf)
    assert float(adapter.reader.memory.mean_length) == pytest.approx(length)
