"""A fitted model, as a folder, gives the embeddings and probabilities that fitting saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from rrra_hf import ResidualFitArguments, Retriever, RetrieverAdapter, RRRAModel, fit_model
from rrra_hf.candidates import mine
from rrra_hf.data import Collection
from rrra_hf.embeddings import encode

QUICK = ResidualFitArguments(max_steps=20, eval_steps=10, hidden_size=16, depth=10)


@pytest.fixture(scope="module")
def collection() -> Collection:
    rng = np.random.default_rng(0)
    words = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnr"]
    texts = [" ".join(rng.choice(words, size=6)) for _ in range(40)]
    relevant = rng.integers(0, 40, size=60)
    queries = [" ".join(rng.choice(texts[row].split(), size=3)) for row in relevant]
    names = [f"q{i}" for i in range(60)]
    qrels = {name: {f"d{row}": 1} for name, row in zip(names, relevant, strict=True)}
    splits = {"train": names[:40], "dev": names[40:50], "test": names[50:]}
    return Collection(
        name="words",
        corpus=Dataset.from_dict({"id": [f"d{i}" for i in range(40)], "title": [""] * 40, "text": texts}),
        queries=Dataset.from_dict({"id": names, "text": queries}),
        qrels_by_split={split: {name: qrels[name] for name in part} for split, part in splits.items()},
    )


@pytest.mark.parametrize("maps", ["none", "query", "both"])
def test_folder_and_package_agree_on_mapped_embeddings(
    tiny_bert: Path, collection: Collection, tmp_path: Path, maps: str
) -> None:
    base = RRRAModel.from_encoder(tiny_bert).to_sentence_transformer()
    queries, documents = collection.query_texts, collection.document_texts
    model = fit_model(RRRAModel.from_encoder(tiny_bert), collection, replace(QUICK, maps=maps))
    expected_queries = model.adapter.map_queries(encode(base, queries, task="query"))
    expected_documents = model.adapter.map_documents(encode(base, documents, task="document"))
    model.save_pretrained(tmp_path / "model")

    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(loaded.encode_query(queries), expected_queries, atol=1e-5)
    np.testing.assert_allclose(loaded.encode_document(documents), expected_documents, atol=1e-5)

    adapter = RetrieverAdapter.from_pretrained(tmp_path / "model")
    pairs = expected_queries[:3], np.stack([expected_documents[:5]] * 3)
    assert np.array_equal(adapter.probability(*pairs), model.adapter.probability(*pairs))
    retriever = Retriever.from_pretrained(tmp_path / "model").index(collection)
    rows = retriever.corpus_index.index.search(expected_queries[:1], 40)[1]
    searched = retriever.search([queries[0]], top_k=40, rerank=False)[0]
    assert [hit["corpus_id"] for hit in searched] == [f"d{row}" for row in rows[0]]


def test_a_pool_of_this_model_is_used_and_of_another_refused(tiny_bert: Path, collection: Collection) -> None:
    model = RRRAModel.from_encoder(tiny_bert)
    pool = mine(collection, model.to_sentence_transformer(), depth=QUICK.depth)
    with_pool = fit_model(model, collection, QUICK, pool=pool).adapter.state_dict()
    without = fit_model(RRRAModel.from_encoder(tiny_bert), collection, QUICK).adapter.state_dict()
    assert all(np.array_equal(with_pool[name], without[name]) for name in without)

    other = RRRAModel.from_encoder(tiny_bert)
    other.encoder.get_input_embeddings().weight.data += 0.1
    with pytest.raises(ValueError, match="encoder"):
        fit_model(other, collection, QUICK, pool=pool)


def test_a_collection_without_training_queries_is_refused(tiny_bert: Path, collection: Collection) -> None:
    only_test = replace(collection, qrels_by_split={"test": collection.qrels_by_split["test"]})
    with pytest.raises(ValueError, match="no split 'train'"):
        fit_model(RRRAModel.from_encoder(tiny_bert), only_test, QUICK)
