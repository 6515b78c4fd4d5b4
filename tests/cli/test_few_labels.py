"""A fit on few labels says so, and so does a search with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_input import succeed, write_beir
from retriever_models import make_adapter
from rrra_hf import RRRAModel
from tiny import word_collection

ROUGH = "The probabilities are rough: there were few labels to calibrate them on."
UNCHANGED = "The adapter changes no ranking: nothing that was fitted ranked unseen queries better."


def write(folder: Path, queries: int) -> Path:
    collection = word_collection(40, train=queries)
    texts = dict(zip(collection.query_ids, collection.query_texts, strict=True))
    documents = dict(zip(collection.document_ids, collection.document_texts, strict=True))
    labels = {query: next(iter(grades)) for query, grades in collection.split("train").qrels.items()}
    return write_beir(folder, documents, texts, labels)


@pytest.mark.parametrize(("queries", "rough"), [(10, True), (60, False)])
def test_rough_probabilities_are_named(
    tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, queries: int, rough: bool
) -> None:
    """Probabilities of 1.00 and 0.00 came from ten labelled queries, without a word."""
    beir = write(tmp_path / "beir", queries)
    residual = ["--preset", "residual", "--max-steps", 2]
    fitted = succeed("fit", beir, "--model", tiny_bert, "--out", tmp_path / "model", *residual, "--json")
    assert (ROUGH in fitted.json["notes"]) == rough
    assert ("The probabilities are rough: they are calibrated on" in caplog.text) == rough
    succeed("index", tmp_path / "model", beir, "--out", tmp_path / "retriever")
    assert (ROUGH in succeed("search", tmp_path / "retriever", "copy files").out) == rough


def test_a_strength_of_0_is_named(tiny_bert: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert)
    model.adapter = make_adapter(fit={"development": {"lambda": 0.0}})
    model.save_pretrained(tmp_path / "model")
    succeed("index", tmp_path / "model", write(tmp_path / "beir", 10), "--out", tmp_path / "retriever")
    assert UNCHANGED in succeed("search", tmp_path / "retriever", "copy files").out


def test_a_search_with_the_adapter_that_comes_trained_has_no_notes(tiny_bert: Path, tmp_path: Path) -> None:
    succeed("index", tiny_bert, write(tmp_path / "beir", 10), "--out", tmp_path / "retriever")
    found = succeed("search", tmp_path / "retriever", "copy files").out
    assert ROUGH not in found
    assert UNCHANGED not in found
