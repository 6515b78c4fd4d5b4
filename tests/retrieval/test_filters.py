"""Filters find the documents that a plain reading of the metadata finds."""

from __future__ import annotations

import json
import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from retrievers import vocabulary_encoder
from rrra_hf import Retriever
from rrra_hf.retrieval.filters import MOST_LEVELS, parse_filter
from rrra_hf.retrieval.metadata import MetadataColumns

scalars = st.one_of(
    st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 1.0, 2.5]), st.sampled_from(["", "a", "b", "é"])
)
values = st.one_of(scalars, st.none(), st.lists(scalars, max_size=3))
fields = st.sampled_from(["x", "y", "z.w"])
documents = st.lists(st.dictionaries(st.sampled_from(["x", "y"]), values), max_size=8)
comparisons = st.one_of(
    scalars,
    st.none(),
    st.dictionaries(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), scalars, min_size=1),
    st.fixed_dictionaries({"$in": st.lists(scalars, max_size=3)}),
    st.fixed_dictionaries({"$nin": st.lists(scalars, max_size=3)}),
    st.fixed_dictionaries({"$exists": st.booleans()}),
)
filters = st.recursive(
    st.dictionaries(fields, comparisons, max_size=2),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$not": inner}),
    ),
    max_leaves=4,
)


def kind(value: object) -> str:
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
    )


def holds(filter: dict[str, Any], document: dict[str, Any]) -> bool:
    """Say whether a filter holds for a document, by the definition of each operator."""
    return all(part_holds(key, value, document) for key, value in filter.items())


def part_holds(key: str, wanted: Any, document: dict[str, Any]) -> bool:
    if key in ("$and", "$or"):
        return (all if key == "$and" else any)(holds(part, document) for part in wanted)
    if key == "$not":
        return not holds(wanted, document)
    value = document.get(key)
    found = [each for each in (value if isinstance(value, list) else [value]) if each is not None]
    comparisons = wanted if isinstance(wanted, dict) else {"$eq": wanted}
    return all(compare(found, name, operand) for name, operand in comparisons.items())


def compare(found: list[Any], name: str, wanted: Any) -> bool:
    if name in ("$ne", "$nin"):
        return not compare(found, {"$ne": "$eq", "$nin": "$in"}[name], wanted)
    if name == "$exists":
        return bool(found) is wanted
    if name == "$eq" and wanted is None:
        return not found
    if name == "$in":
        return any(compare(found, "$eq", each) for each in wanted)
    test = getattr(operator, {"$gt": "gt", "$gte": "ge", "$lt": "lt", "$lte": "le", "$eq": "eq"}[name])
    return any(kind(each) == kind(wanted) and test(each, wanted) for each in found)


@given(documents=documents, filter=filters)
def test_a_filter_finds_what_its_definition_says(
    documents: list[dict[str, Any]], filter: dict[str, Any]
) -> None:
    rows = MetadataColumns(map(json.dumps, documents)).rows(parse_filter(filter))
    assert rows.tolist() == [row for row, document in enumerate(documents) if holds(filter, document)]


def test_keys_of_dictionaries_are_joined_by_dots_and_large_integers_are_exact() -> None:
    columns = MetadataColumns(['{"by":{"name":"Ada"},"n":9007199254740993}', '{"n":9007199254740992}'])
    assert columns.rows(parse_filter({"by.name": "Ada"})).tolist() == [0]
    assert columns.rows(parse_filter({"n": 9007199254740993})).tolist() == [0]
    assert columns.rows(parse_filter({"n": {"$gt": 9007199254740992}})).tolist() == [0]


def nested(levels: int) -> dict[str, Any]:
    return {"x": 1} if levels == 1 else {"$not": nested(levels - 1)}


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        ({"$nor": []}, r"keys of metadata or one of \$and, \$or, \$not, got '\$nor'"),
        ({"x": {"$regex": "a"}}, r"operators of 'x' among \$eq.*got '\$regex'"),
        ({"x": {"nested": 1}}, "operators of 'x' among"),
        ({"x": {}}, "got none"),
        ({"x": [1]}, r"compare 'x' with a string, a finite number, true or false, got \[1\]"),
        ({"x": {"$gt": None}}, "compare 'x' with a string"),
        ({"x": float("nan")}, "finite number"),
        ({"x": {"$in": "abc"}}, "list of at most 10,000 values"),
        ({"x": {"$in": list(range(10_001))}}, "at most 10,000 values"),
        ({"x": {"$exists": 1}}, "true or false for \\$exists"),
        ({"$and": []}, "a list of filters for \\$and"),
        ({"$or": {"x": 1}}, "a list of filters for \\$or"),
        ("x = 1", "must be a dictionary"),
        ({1: 2}, "strings as keys"),
        (nested(MOST_LEVELS + 1), f"at most {MOST_LEVELS} levels"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(filter: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_filter(filter)


CORPUS = {
    "cp": {"text": "copy a file", "metadata": {"section": 1, "tags": ["io"]}},
    "mv": {"text": "copy a file, then list", "metadata": {"section": 2}},
    "ls": {"text": "list a file", "metadata": {"section": 1, "tags": ["io", "dir"]}},
    "sort": "sort a list",
}


@pytest.fixture(scope="module")
def encoder() -> SentenceTransformer:
    return vocabulary_encoder()


@pytest.mark.parametrize("adapter", ["pretrained", None])
@pytest.mark.parametrize("mode", [None, "hybrid"])
@pytest.mark.parametrize("kind", ["flat", "ivf-flat"])
def test_a_search_ranks_the_documents_of_the_filter_alone(
    encoder: SentenceTransformer, adapter: Any, mode: Any, kind: str
) -> None:
    retriever = Retriever(encoder, adapter).index(CORPUS, kind=kind)
    search = {"mode": mode, "probabilities": adapter is not None}
    everything = retriever.search("copy a file", **search)[0]
    assert len(everything) == 4
    [hits] = retriever.search("copy a file", filter={"section": 1}, top_k=2, **search)
    assert {hit["corpus_id"] for hit in hits} == {"cp", "ls"}
    assert hits[0]["corpus_id"] == "cp"
    # Before the first are chosen: the second document of the filter is not among the first two.
    assert [hit["corpus_id"] for hit in everything[:2]] == ["cp", "mv"]
    assert retriever.search("copy", filter={"section": 9}) == [[]]
    assert retriever.search(["copy", "list"], filter={}, top_k=1) == retriever.search(
        ["copy", "list"], top_k=1
    )


@pytest.mark.parametrize("depth", [2, 150])
def test_a_filter_changes_neither_scores_nor_probabilities(encoder: SentenceTransformer, depth: int) -> None:
    retriever = Retriever(encoder).index(CORPUS)
    options = {"depth": depth, "probabilities": True}
    everything = {hit["corpus_id"]: hit for hit in retriever.search("list a file", **options)[0]}
    for filter in ({"section": 1}, {"tags": "dir"}, {"section": {"$exists": False}}):
        [hits] = retriever.search("list a file", filter=filter, **options)
        assert hits
        # The candidates of the search among all are the first documents that it finds.
        for hit in (hit for hit in hits if list(everything).index(hit["corpus_id"]) < depth):
            expected = everything[hit["corpus_id"]]
            assert hit["probability"] == pytest.approx(expected["probability"], abs=1e-5)
            assert hit["score"] == pytest.approx(expected["score"], abs=1e-5)


def test_words_are_counted_in_the_whole_corpus(encoder: SentenceTransformer) -> None:
    retriever = Retriever(encoder).index(CORPUS)
    everything = {hit["corpus_id"]: hit for hit in retriever.search("list a file", rerank=False)[0]}
    [hits] = retriever.search("list a file", filter={"tags": "io"}, rerank=False)
    assert [(hit["corpus_id"], hit["score"]) for hit in hits] == [
        (name, everything[name]["score"]) for name in ("ls", "cp")
    ]


def test_hits_have_the_documents_and_their_metadata(encoder: SentenceTransformer) -> None:
    retriever = Retriever(encoder, adapter=None).index(CORPUS)
    [hits] = retriever.search("copy", top_k=1, return_documents=True)
    assert hits[0] | {"score": 1} == {
        "corpus_id": "cp",
        "score": 1,
        "title": "",
        "text": "copy a file",
        "metadata": {"section": 1, "tags": ["io"]},
    }
    assert retriever.document("sort") == {"id": "sort", "title": "", "text": "sort a list", "metadata": {}}
    plain = Retriever(encoder, adapter=None).index({"sort": "sort a list"})
    assert "metadata" not in plain.search("sort", return_documents=True)[0][0]


def test_a_filter_of_a_corpus_without_metadata_finds_nothing(encoder: SentenceTransformer) -> None:
    retriever = Retriever(encoder).index({"sort": "sort a list"})
    assert retriever.search("sort", filter={"section": 1}) == [[]]
    assert len(retriever.search("sort", filter={"section": {"$ne": 1}})[0]) == 1
    with pytest.raises(ValueError, match="operators of 'section'"):
        retriever.search("sort", filter={"section": {"$near": 1}})


def test_metadata_are_saved(encoder: SentenceTransformer, tmp_path: Any) -> None:
    Retriever(encoder).index(CORPUS).save_pretrained(tmp_path)
    opened = Retriever.from_pretrained(tmp_path)
    assert opened.document("ls")["metadata"] == CORPUS["ls"]["metadata"]
    assert len(opened.search("file", filter={"tags": "dir"})[0]) == 1


def test_rows_are_those_of_the_documents() -> None:
    rows = MetadataColumns(["", '{"x":1}']).rows(parse_filter({"x": 1}))
    assert rows.dtype == np.int64 and rows.tolist() == [1]
