"""Values of a JSON body are counted without reading it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rrra_hf.serving.reading import count_values

TEXTS = st.text(alphabet=st.sampled_from('ab,"\\\n{}[]é'))
VALUES = st.recursive(
    st.integers() | TEXTS,
    lambda inner: st.lists(inner, min_size=1) | st.dictionaries(TEXTS, inner, min_size=1),
    max_leaves=20,
)


def leaves(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(leaves, value)) if isinstance(value, list) else 1


@given(VALUES, st.booleans())
def test_all_values_are_counted_and_no_commas_of_texts(value: Any, ascii_only: bool) -> None:
    assert count_values(json.dumps(value, ensure_ascii=ascii_only).encode()) == leaves(value)
