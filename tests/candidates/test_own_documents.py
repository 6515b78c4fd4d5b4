"""What labels and the query itself say about candidates, and how long many labels take."""

from __future__ import annotations

import logging
from time import process_time

import numpy as np
import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from mined import make_collection
from rrra_hf.candidates import mine, mine_collection, mine_embeddings
from rrra_hf.candidates.excluded import rows_of_same_text
from rrra_hf.data import Collection
from rrra_hf.embeddings import CollectionEmbeddings
from rrra_hf.indexes import FlatIndex, Index


def duplicates() -> tuple[Collection, CollectionEmbeddings]:
    """Duplicate questions: "a" is the first query by its id, "b" the second by its text."""
    texts = ["How do I sort?", "copy  FILES", "sorting", "copying"]
    collection = Collection(
        name="duplicates",
        corpus=Dataset.from_dict({"id": list("abcd"), "title": [""] * 4, "text": texts}),
        queries=Dataset.from_dict({"id": ["a", "q"], "text": ["how to sort", "copy files"]}),
        qrels_by_split={"train": {"a": {"c": 1}, "q": {"d": 1}}},
    )
    return collection, CollectionEmbeddings(np.eye(4)[:2], np.eye(4), {})


def test_a_document_that_is_the_query_is_no_candidate(caplog: pytest.LogCaptureFixture) -> None:
    collection, embeddings = duplicates()
    with caplog.at_level(logging.INFO):
        pool = mine_collection(collection, embeddings, depth=4)
    assert [set(ids) for ids in pool.candidate_ids] == [{"b", "d"}, {"a", "c"}]
    assert "duplicates: 2 of 2 queries are documents themselves" in caplog.text
    pool = mine_collection(collection, embeddings, depth=4, exclude_self=False)
    assert [ids[0] for ids in pool.candidate_ids] == ["a", "b"]


def test_known_negatives_have_probability_zero(encoder: SentenceTransformer) -> None:
    collection = make_collection({"q0": {"a": 1, "e": 0}, "q2": {"d": 1}})
    pool = mine(collection, encoder, depth=3)
    assert pool.probability is not None
    place = pool.candidate_ids[0].index("e")
    assert pool.probability[0, place] == 0 and (np.delete(pool.probability[0], place) > 0).all()


class CountingIndex(FlatIndex):
    """An index that counts what searches return."""

    found = 0

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self.found += len(queries) * k
        return super().search(queries, k)


def test_many_positives_of_one_query_make_no_other_search_deep() -> None:
    rng = np.random.default_rng(0)
    queries, documents = rng.standard_normal((64, 4)), rng.standard_normal((3000, 4))
    index: Index = CountingIndex(4)
    index.add(documents)
    positives = [np.arange(2000), *([row] for row in range(1, 64))]
    pool = mine_embeddings(queries, documents, positives, depth=5, index=index)
    exact = mine_embeddings(queries, documents, positives, depth=5)
    assert (pool.candidates == exact.candidates).all()
    assert index.found <= 2 * (64 * 5 + 2000 + 63)


def test_many_positives_of_the_same_text_take_linear_time() -> None:
    # Every pair of them took six seconds.
    start = process_time()
    (rows,) = rows_of_same_text(["x"] * 10_000, [np.arange(10_000)])
    assert len(rows) == 10_000
    assert process_time() - start < 1
