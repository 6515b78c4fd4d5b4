"""Evaluation measures what a search finds."""

from __future__ import annotations

import pytest

from retrievers import ids, make_collection, opposing_adapter, vocabulary_encoder
from rrra_hf.retrieval import Retriever, evaluate


def test_evaluation_by_hand() -> None:
    collection = make_collection()
    retriever = Retriever(vocabulary_encoder(), opposing_adapter(lambda_=3.0)).index(collection)
    quality, milliseconds = evaluate(retriever, collection, ["MRR@10", "R@1"])
    # q1: a b c d before, d c b a after; q2: d a b c before; after, the ties a b c come first.
    assert quality["encoder"].query_ids == ["q1", "q2"]
    assert quality["encoder"].per_query["MRR@10"].tolist() == pytest.approx([1 / 3, 1.0])
    assert quality["adapter"].per_query["MRR@10"].tolist() == pytest.approx([1 / 2, 1 / 4])
    assert quality["encoder"].mean["R@1"] == 0.5
    assert quality["adapter"].mean["R@1"] == 0.0
    assert set(milliseconds) == {"encode", "search", "rerank"}
    assert all(value > 0 for value in milliseconds.values())


def test_evaluation_agrees_with_search(retriever: Retriever) -> None:
    collection = make_collection()
    retriever = Retriever(retriever.encoder).index(collection)
    quality, _ = evaluate(retriever, collection, ["MRR@10"], depth=2)
    hits = retriever.search({"q1": "copy file", "q2": "list"}, depth=2)
    expected = [1 / (1 + ids(hits["q1"]).index("c")), 1 / (1 + ids(hits["q2"]).index("d"))]
    assert quality["adapter"].per_query["MRR@10"].tolist() == pytest.approx(expected)


def test_evaluation_without_an_adapter_measures_the_encoder_alone() -> None:
    collection = make_collection()
    quality, milliseconds = evaluate(
        Retriever(vocabulary_encoder(), adapter=None).index(collection), collection
    )
    assert list(quality) == ["encoder"]
    assert set(milliseconds) == {"encode", "search"}


def test_evaluation_retrieves_as_deep_as_a_measure_looks() -> None:
    collection = make_collection()
    retriever = Retriever(vocabulary_encoder(), opposing_adapter(lambda_=3.0)).index(collection)
    quality, _ = evaluate(retriever, collection, ["R@3", "MRR@1"], depth=1)
    assert quality["adapter"].per_query["R@3"].tolist() == [1.0, 1.0]


def test_evaluation_of_another_corpus_is_refused() -> None:
    retriever = Retriever(vocabulary_encoder())
    with pytest.raises(ValueError, match="no index yet"):
        evaluate(retriever, make_collection())
    other = {"a": "copy file", "b": "copy", "c": "copy sort", "x": "list"}
    for corpus in ({"a": "copy"}, other):
        with pytest.raises(ValueError, match=r"index is of another corpus .*tiny"):
            evaluate(retriever.index(corpus), make_collection())


def test_evaluation_refuses_what_it_cannot_measure() -> None:
    collection = make_collection(qrels_by_split={"test": {}})
    retriever = Retriever(vocabulary_encoder()).index(collection)
    with pytest.raises(ValueError, match="tiny has no query with a relevant document"):
        evaluate(retriever, collection)
    with pytest.raises(ValueError, match="measure must be a name such as"):
        evaluate(retriever, make_collection(), ["quality"])
    with pytest.raises(ValueError, match="depth must be at least 1"):
        evaluate(retriever, make_collection(), depth=0)
