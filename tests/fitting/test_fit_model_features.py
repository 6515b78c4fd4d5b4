"""A model is fitted on the words and the labels of its collection."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from feature_task import EVERYTHING, PRESET
from rrra_hf import RRRAModel, fit_model
from rrra_hf.candidates import LabelledQueries
from rrra_hf.data import Collection
from rrra_hf.embeddings import embed_collection
from rrra_hf.fitting import fit_adapter
from rrra_hf.indexes import WordIndex


def test_a_model_reads_features_of_labels(feature_model: RRRAModel, feature_collection: Collection) -> None:
    adapter = feature_model.adapter
    assert adapter.reader.ranking == list(EVERYTHING)
    assert adapter.config.reader["queries"] == 40
    assert adapter.config.fit["unseen"]["queries"] == 50
    assert adapter.config.fit["data"]["collection"] == feature_collection.name


@pytest.mark.parametrize("development", [True, False])
@pytest.mark.usefixtures("quick")
def test_a_model_is_fitted_as_its_embeddings_are(
    tiny_bert: Path, feature_collection: Collection, development: bool
) -> None:
    collection, arguments = feature_collection, replace(PRESET, depth=20)
    if not development:
        splits = {name: qrels for name, qrels in collection.qrels_by_split.items() if name != "dev"}
        collection = replace(collection, qrels_by_split=splits)
    model = fit_model(RRRAModel.from_encoder(tiny_bert), collection, arguments)
    encoder = RRRAModel.from_encoder(tiny_bert).to_sentence_transformer()
    training, words = collection.split("train"), WordIndex.of(collection.document_texts)
    embeddings = embed_collection(training, encoder)
    held_out = None
    if development:
        part = collection.split("dev")
        queries = embed_collection(part, encoder).queries
        held_out = LabelledQueries(queries, part.positive_rows, words.count(part.query_texts))
    expected = fit_adapter(
        embeddings.queries,
        embeddings.documents,
        training.positive_rows,
        development=held_out,
        arguments=arguments,
        query_words=words.count(training.query_texts),
        document_words=words,
    )
    assert model.adapter.config.fit["unseen"]["queries"] == (50 if development else 40)
    assert model.adapter.config.reader == expected.config.reader
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(model.adapter.state_dict()[name], value, rtol=1e-4, atol=1e-5)
