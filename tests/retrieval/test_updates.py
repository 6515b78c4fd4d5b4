"""A corpus that changes is searched as if it had been indexed anew."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from alike import assert_alike
from retrievers import ids, vocabulary_encoder
from rrra_hf import Retriever, RRRAModel
from rrra_hf.data import Collection

WORDS = ["copy", "files", "sort", "text", "find", "old", "folder"]
NAMES = [f"d{number}" for number in range(12)]
QUERIES = ["copy a file", "list", "sort the folder"]


def text_of(draw: np.random.Generator) -> dict[str, Any]:
    return {
        "text": " ".join(draw.choice(WORDS, draw.integers(1, 9))),
        "metadata": {"size": int(draw.integers(3))},
    }


def hits(retriever: Retriever, **options: Any) -> Any:
    return retriever.search(QUERIES, 20, depth=6, probabilities=True, return_documents=True, **options)


def assert_same_hits(found: Any, expected: Any) -> None:
    """Hits are equal but for the order in which float32 sums are taken, and that of documents of one text."""
    for some, others in zip(found, expected, strict=True):
        assert sorted(map(known, some)) == sorted(map(known, others))
        for hit, other in zip(some, others, strict=True):
            assert hit["text"] == other["text"]
            assert hit["score"] == pytest.approx(other["score"], abs=1e-5)
            assert hit["probability"] == pytest.approx(other["probability"], abs=1e-5)


def known(hit: Any) -> tuple[str, ...]:
    return hit["corpus_id"], hit["title"], hit["text"], str(hit["metadata"])


changes = st.lists(
    st.tuples(st.sampled_from(["update", "delete"]), st.sets(st.sampled_from(NAMES), min_size=1, max_size=4)),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=changes, seed=st.integers(0, 99))
@example(changes=[("update", {"d0"})], seed=42)  # two documents of one text
def test_any_changes_give_the_hits_of_a_corpus_indexed_anew(
    encoder: SentenceTransformer, kind: str, changes: list[tuple[str, set[str]]], seed: int
) -> None:
    draw = np.random.default_rng(seed)
    expected = {f"old{number}": text_of(draw) for number in range(8)}
    retriever = Retriever(encoder).index(expected, kind=kind, language="english")
    for change, names in changes:
        if change == "delete":
            assert retriever.delete(sorted(names)) == len(names & expected.keys())
            expected = {name: text for name, text in expected.items() if name not in names}
        else:
            new = {name: text_of(draw) for name in sorted(names)}
            retriever.update(new)
            expected = {name: text for name, text in expected.items() if name not in names} | new
    assert retriever.documents["id"].to_pylist() == list(expected)
    anew = Retriever(encoder).index(expected, kind=kind, language="english")
    assert retriever.corpus_index.corpus == anew.corpus_index.corpus
    assert_same_hits(hits(retriever), hits(anew))
    assert_same_hits(hits(retriever, filter={"size": 1}), hits(anew, filter={"size": 1}))


def test_features_follow_the_documents(
    feature_model: RRRAModel, feature_collection: Collection, tmp_path: Path
) -> None:
    texts = dict(zip(feature_collection.document_ids, feature_collection.document_texts, strict=True))
    first, rest = dict(list(texts.items())[:-9]), dict(list(texts.items())[-9:])
    queries = feature_collection.query_texts[:5]
    anew = Retriever(feature_model).index(dict([*list(texts.items())[3:]]))
    assert anew.corpus_index.features.statics.size
    retriever = Retriever(feature_model).index(first)
    retriever.add(rest).delete(feature_collection.document_ids[:3])
    expected = anew.search(queries, 20, probabilities=True)
    assert_alike(retriever.search(queries, 20, probabilities=True), expected)
    retriever.save_pretrained(tmp_path)
    opened = Retriever.from_pretrained(tmp_path)
    assert_alike(opened.search(queries, 20, probabilities=True), expected)


@pytest.mark.parametrize("options", [{"kind": "flat"}, {"kind": "ivf-flat"}, {"storage": "binary"}])
def test_a_changed_index_is_saved_and_changed_again(options: dict[str, str], tmp_path: Path) -> None:
    texts = {f"d{number}": f"{word} {other}" for number, (word, other) in enumerate(_pairs())}
    retriever = Retriever(vocabulary_encoder()).index(texts, **options)
    retriever.update({"d1": "sort", "new": {"text": "list", "metadata": {"x": 1}}})
    retriever.save_pretrained(tmp_path)
    opened = Retriever.from_pretrained(tmp_path)
    assert hits(opened) == hits(retriever)
    assert opened.delete(["new", "unknown"]) == 1
    opened.save_pretrained(tmp_path)
    assert "new" not in Retriever.from_pretrained(tmp_path).documents["id"].to_pylist()


def _pairs() -> list[tuple[str, str]]:
    return [(word, other) for word in WORDS for other in WORDS]


def test_a_search_during_changes_sees_the_corpus_before_or_after() -> None:
    encoder = vocabulary_encoder()
    even = {f"e{number}": "copy file" for number in range(40)}
    odd = {f"o{number}": "copy file" for number in range(40)}
    retriever = Retriever(encoder).index({**even, "both": "list"})
    seen, stop, faults = set(), threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            try:
                found = retriever.search("copy a file", 100, return_documents=True, show_progress_bar=False)
                seen.add(frozenset(hit["corpus_id"] for hit in found[0]))
            except Exception as error:
                faults.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(500):
            retriever.add(odd)
            retriever.delete(list(odd))
            if number > 15 and len(seen) > 1:
                break
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not faults
    assert seen <= {frozenset([*even, "both"]), frozenset([*even, *odd, "both"])} and len(seen) == 2


def test_changes_at_the_same_time_are_all_made() -> None:
    retriever = Retriever(vocabulary_encoder(), adapter=None).index({"first": "copy"})
    threads = [threading.Thread(target=retriever.add, args=({name: "sort"},)) for name in NAMES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(retriever.documents["id"].to_pylist()) == sorted(["first", *NAMES])


def test_bad_changes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    retriever = Retriever(vocabulary_encoder()).index({"a": "copy", "b": "sort"})
    before = retriever.corpus_index
    for change, message in [
        (lambda: retriever.add({"c": "list", "a": "copy"}), "must have new ids, 1 are indexed.*'a'"),
        (lambda: retriever.add({"c": ""}), "must have texts, the document 'c' has none"),
        (lambda: retriever.update({}), "must have documents, got none"),
        (lambda: retriever.delete(["a", "b"]), "must keep a document"),
        (lambda: retriever.delete("a"), "must be a sequence of strings"),
        (lambda: retriever.delete(["a", 7]), "must be non-empty strings, got 7"),
        (
            lambda: retriever.add({"c": {"text": "x", "metadata": {1: 2}}}),
            "must have JSON as metadata of 'c'",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            change()
    assert retriever.delete(["unknown"]) == 0
    assert retriever.corpus_index is before
    with pytest.raises(ValueError, match="no index yet"):
        Retriever(vocabulary_encoder()).delete(["a"])


def test_an_index_of_another_model_is_not_changed(encoder: SentenceTransformer) -> None:
    model = RRRAModel.from_encoder(encoder[0].model.config._name_or_path)
    retriever = Retriever(model).index({"a": "copy", "b": "sort"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rrra_hf.retrieval.retriever.embeddings_fingerprint", lambda *_: "other")
        with pytest.raises(ValueError, match="model was changed after the corpus was indexed"):
            retriever.add({"c": "list"})
    assert ids(retriever.search("copy")[0]) and retriever.documents.num_rows == 2
