"""A filter finds the same documents in Milvus as in an index of this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rrra_hf.data.metadata import metadata_json, parse_metadata
from rrra_hf.indexes import MilvusIndex
from rrra_hf.indexes.milvus import Entity
from rrra_hf.retrieval.filters import parse_filter
from rrra_hf.retrieval.metadata import MetadataColumns
from rrra_hf.retrieval.milvus_filters import filter_entries, milvus_filter

pytest.importorskip("pymilvus")

SCALARS = st.one_of(
    st.sampled_from(["a", "b", 'quo"te', "back\\slash", "line\nbreak", "日本", ""]),
    st.integers(-2, 2),
    st.sampled_from([-1.5, 0.0, 1.0, 2.5, 1e300]),
    st.booleans(),
)
FIELDS = st.sampled_from(["x", "y", 'k"ey', "deep.er"])
METADATA = st.dictionaries(
    st.sampled_from(["x", "y", 'k"ey', "deep"]),
    st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.fixed_dictionaries({"er": SCALARS}), st.none()),
    max_size=3,
)
COMPARISONS = st.one_of(
    SCALARS,
    st.none(),
    st.tuples(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), SCALARS).map(
        lambda p: dict([p])
    ),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(SCALARS, max_size=3)).map(lambda p: dict([p])),
    st.booleans().map(lambda there: {"$exists": there}),
)
FILTERS = st.recursive(
    st.dictionaries(FIELDS, COMPARISONS, max_size=2),
    lambda part: st.one_of(
        st.lists(part, min_size=1, max_size=2).map(lambda parts: {"$and": parts}),
        st.lists(part, min_size=1, max_size=2).map(lambda parts: {"$or": parts}),
        part.map(lambda inner: {"$not": inner}),
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusIndex]:
    index = MilvusIndex(2, tmp_path_factory.mktemp("milvus") / "documents.db", index_type="FLAT")
    yield index
    index.close()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(metadata=st.lists(METADATA, min_size=1, max_size=6), filters=st.lists(FILTERS, min_size=1, max_size=6))
def test_filters_hold_for_the_same_documents(
    index: MilvusIndex, metadata: list[dict[str, Any]], filters: list[dict[str, Any]]
) -> None:
    texts = list(map(metadata_json, metadata))
    index.clear()
    index.upsert(
        [
            Entity(
                *(str(row), "", "text", text, filter_entries(parse_metadata(text)), 1),
                *(np.array([1, 0], dtype=np.float32), {3: 1.0}),
            )
            for row, text in enumerate(texts)
        ]
    )
    columns = MetadataColumns(texts)
    for given_filter in filters:
        condition = parse_filter(given_filter)
        expected = list(map(str, columns.rows(condition)))
        for found in (
            index.search(np.array([[1.0, 0.0]]), 10, milvus_filter(condition)),
            index.search_words([{3: 1.0}], 10, milvus_filter(condition)),
        ):
            assert sorted(found[0]) == expected, given_filter


def test_control_characters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no control characters with Milvus, got 'string:a\\x00'"):
        milvus_filter(parse_filter({"a\0": "b"}))
    assert milvus_filter(None) == ""
