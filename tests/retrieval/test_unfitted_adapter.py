"""An adapter that was never fitted ranks nothing, and tells no probability."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from retriever_models import CORPUS, QUERY, RESIDUAL, make_adapter
from rrra_hf import AdapterConfig, RetrieverAdapter, RRRAModel
from rrra_hf.candidates import mine
from rrra_hf.retrieval import Retriever, evaluate, evaluate_saved
from tiny import word_collection


@pytest.fixture(scope="module")
def unfitted(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the adapter that a stage of training has, saved."""
    folder = tmp_path_factory.mktemp("unfitted") / "model"
    RRRAModel.from_encoder(tiny_bert, adapter={"reader": RESIDUAL}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("reader", [{"kind": "features"}, RESIDUAL])
def test_only_a_fit_makes_an_adapter_learnt(reader: dict[str, object]) -> None:
    assert not RetrieverAdapter(AdapterConfig(embedding_dim=32, reader=reader)).has_learnt
    assert RetrieverAdapter.pretrained().has_learnt
    # A fit that found that the ranking is better left alone still tells probabilities.
    fitted = AdapterConfig(embedding_dim=32, reader=reader, fit={"development": {"lambda": 0.0}})
    assert RetrieverAdapter(fitted).has_learnt


def test_no_probability_is_shown(unfitted: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Irrelevant documents had a probability of .99."""
    with caplog.at_level(logging.WARNING):
        retriever = Retriever.from_pretrained(unfitted).index(CORPUS)
    assert "never fitted" in caplog.text
    assert retriever.adapter is None
    with pytest.raises(ValueError, match=r"probabilities need an adapter\. The adapter was never fitted"):
        retriever.search(QUERY, probabilities=True)


def test_the_page_shows_no_probability(unfitted: Path) -> None:
    pytest.importorskip("gradio")
    from rrra_hf.app.comparison import compare

    retriever = Retriever.from_pretrained(unfitted).index(CORPUS)
    found = compare(retriever, QUERY)
    assert found.reranked is None
    assert all(hit.probability is None for hit in found.encoder)


def test_no_row_of_an_adapter_is_shown(unfitted: Path) -> None:
    collection = word_collection(20, test=10)
    retriever = Retriever.from_pretrained(unfitted).index(collection)
    assert list(evaluate(retriever, collection).quality) == ["encoder"]
    with pytest.raises(ValueError, match="folder must hold an adapter that was fitted"):
        evaluate_saved(unfitted, collection)


def test_a_saved_index_goes_on_with_an_adapter_that_is_fitted_later(unfitted: Path, tmp_path: Path) -> None:
    """To be saved without an adapter is a choice, to have none yet isn't."""
    retriever = Retriever.from_pretrained(unfitted).index(CORPUS)
    retriever.save_pretrained(tmp_path / "retriever")
    again = Retriever.from_pretrained(tmp_path / "retriever")
    RRRAModel.from_sentence_transformer(again.encoder).adapter = make_adapter(lambda_=0.5)
    assert again.adapter is not None
    assert "probability" in again.search(QUERY, probabilities=True)[0][0]


def test_mining_refuses_it(unfitted: Path) -> None:
    model = RRRAModel.from_pretrained(unfitted)
    with pytest.raises(ValueError, match="adapter must be one that was fitted"):
        mine(word_collection(20, train=10), model.to_sentence_transformer(), adapter=model.adapter)
