"""A corpus of any kind is indexed alike, or refused; illegal values are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from retriever_models import CORPUS, make_adapter
from retrievers import QUERIES, TEXTS, make_model
from rrra_hf.data import Collection
from rrra_hf.retrieval import Retriever
from rrra_hf.retrieval.documents import document_table, document_texts

# -------------------------------------------------------------------- corpora


def test_every_kind_of_corpus_gives_the_same_table() -> None:
    columns = {
        "id": list(CORPUS),
        "title": [d["title"] if isinstance(d, dict) else "" for d in CORPUS.values()],
        "text": [d["text"] if isinstance(d, dict) else d for d in CORPUS.values()],
    }
    dataset = Dataset.from_dict(columns)
    collection = Collection("tiny", dataset, Dataset.from_dict({"id": [], "text": []}), {})
    table = document_table(CORPUS)
    assert table.to_pydict() == columns
    for corpus in (dataset, collection, Dataset.from_dict({**columns, "more": columns["id"]})):
        assert document_table(corpus) == table
    assert document_texts(table) == collection.document_texts == TEXTS
    assert document_table(["a", "b"]).to_pydict() == {"id": ["0", "1"], "title": ["", ""], "text": ["a", "b"]}
    untitled = dataset.remove_columns("title")
    assert document_table(untitled)["title"].to_pylist() == [""] * 6
    empty_titles = Dataset.from_dict({**columns, "title": [None] * 6})
    assert document_table(empty_titles)["title"].to_pylist() == [""] * 6


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([], "corpus must have documents, got none"),
        ({}, "corpus must have documents, got none"),
        (Dataset.from_dict({"id": [], "text": []}), "corpus must have documents, got none"),
        (Dataset.from_dict({"_id": ["a"], "text": ["b"]}), r"columns id and text, got \['_id', 'text'\]"),
        (Dataset.from_dict({"id": ["a", "a"], "text": ["b", "c"]}), "unique ids, 1 repeat, the first is 'a'"),
        (Dataset.from_dict({"id": [1], "text": ["b"]}), "strings as id, got int at position 0"),
        (["a", None], "strings as text, got NoneType at position 1"),
        ([{"text": "a"}], "strings as text, got dict at position 0"),
        ({"a": {"title": 3, "text": "b"}}, "strings as title, got int at position 0"),
        (["a", "b\udc80"], "corpus text 1 must be valid Unicode, got a lone surrogate at character 2"),
        ({"a": {"title": "\ud800", "text": "b"}}, "corpus title 0 must be valid Unicode"),
        ({"\ud800": "b"}, "corpus id 0 must be valid Unicode"),
        ({"a": "b", "c": " "}, "the document 'c' has none"),
        ({"a": {"title": ""}}, "the document 'a' has none"),
        ("find files", "got str"),
        (7, "got int"),
    ],
)
def test_malformed_corpus_is_refused(encoder: SentenceTransformer, corpus: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Retriever(encoder).index(corpus)


def test_embeddings_are_cached(encoder: SentenceTransformer, tmp_path: Path) -> None:
    first = Retriever(encoder).index(CORPUS, cache_dir=tmp_path)
    assert list(tmp_path.rglob("embeddings.arrow"))
    second = Retriever(encoder).index(CORPUS, cache_dir=tmp_path)
    assert second.search(QUERIES) == first.search(QUERIES) == Retriever(encoder).index(CORPUS).search(QUERIES)


# -------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.search("a", top_k=0), "top_k must be at least 1, got 0"),
        (lambda r: r.search("a", depth=0), "depth must be at least 1, got 0"),
        (lambda r: r.search(["a", " "]), "queries must not be empty, query 1 is"),
        (lambda r: r.search({"x": "a", "y": ""}), "queries must not be empty, query 'y' is"),
        (lambda r: r.search(""), "queries must not be empty, query 0 is"),
        (lambda r: r.search(["a", 7]), "queries must be strings, got int for query 1"),
        (lambda r: r.search(["a", "\ud800"]), "query 1 must be valid Unicode, got a lone surrogate"),
        (lambda r: r.search({"x": "b\udc80"}), "query 'x' must be valid Unicode"),
        (lambda r: r.rank("\ud800", ["a"]), "query 0 must be valid Unicode"),
        (lambda r: r.rank("a", ["b", "\ud800"]), "corpus text 1 must be valid Unicode"),
        (lambda r: r.rank("", ["a"]), "queries must not be empty"),
        (lambda r: r.rank("a", ["b", ""]), "the document '1' has none"),
        (lambda r: r.rank("a", ["b"], top_k=0), "top_k must be at least 1 or None, got 0"),
        (lambda r: r.rank("a", ["b", "c"], document_embeddings=np.ones((1, 32))), "got 1 for 2 documents"),
        (lambda r: r.search_embeddings(np.full((2, 32), np.nan)), "query_embeddings must be finite: 2 of 2"),
        (lambda r: r.search_embeddings(np.ones((2, 31))), "query_embeddings must have dimension 32, got 31"),
        (lambda r: r.search_embeddings(np.ones(32)), r"query_embeddings must be numbers of shape \(n, dim\)"),
        (lambda r: r.search_embeddings(np.ones((1, 32)), top_k=0), "top_k must be at least 1"),
    ],
)
def test_illegal_values_are_refused(
    retriever: Retriever, call: Callable[[Retriever], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(retriever)


def test_unknown_document_is_refused(retriever: Retriever) -> None:
    assert retriever.document("mv") == {"id": "mv", "title": "", "text": CORPUS["mv"]}
    with pytest.raises(KeyError, match="No document 'nope'"):
        retriever.document("nope")


def test_search_without_an_index_is_refused(encoder: SentenceTransformer) -> None:
    for call in (
        lambda r: r.search("a"),
        lambda r: r.search([]),
        lambda r: r.search_embeddings(np.ones((1, 32))),
        lambda r: r.documents,
        lambda r: r.document("a"),
    ):
        with pytest.raises(ValueError, match=r"no index yet: call index\(corpus\) first"):
            call(Retriever(encoder))


def test_adapter_that_does_not_fit_is_refused(tiny_bert: Path, encoder: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="adapter must be of dimension 32, got 31"):
        Retriever(encoder, make_adapter(dim=31))
    model = make_model(tiny_bert)
    for made in (model, model.to_sentence_transformer()):
        with pytest.raises(ValueError, match="must not be given with an RRRAModel"):
            Retriever(made, make_adapter())
    with pytest.raises(
        ValueError, match="adapter must be a RetrieverAdapter, 'pretrained' or None, got 'fitted'"
    ):
        Retriever(encoder, "fitted")
    with pytest.raises(ValueError, match="probabilities need an adapter"):
        Retriever(encoder, adapter=None).index(CORPUS).search("a", probabilities=True)
    with pytest.raises(ValueError, match="probabilities need an adapter"):
        Retriever(encoder, adapter=None).rank("a", ["b"], probabilities=True)


def test_nan_weights_are_refused(tiny_bert: Path) -> None:
    model = make_model(tiny_bert, lambda_=0.5)
    retriever = Retriever(model).index(CORPUS)
    with torch.no_grad():
        model.adapter.reader.readout.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="adapter gave NaN"):
        retriever.search("find files")
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="model gave NaN"):
        retriever.search("find files")
    before = retriever.documents
    with pytest.raises(ValueError, match="model gave NaN"):
        retriever.index(["a"])
    assert retriever.documents is before
