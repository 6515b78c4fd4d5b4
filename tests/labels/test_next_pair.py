"""The pair that is worth most comes first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from rrra_hf.labels.review.next_pair import most_worth, worth

NAN = float("nan")


def test_worth_by_hand() -> None:
    p = np.array([[0.5, 0.5, 1.0, 0.0, NAN]])
    assert_allclose(worth(p), [[0.125, 0.125 / np.log2(3), 0.0, 0.0, 0.0]])


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), max_size=6), st.integers(1, 20))
def test_the_first_pairs_are_those_of_all_pairs_in_order(rows: list[list[float]], count: int) -> None:
    p = np.array(rows, dtype=np.float32).reshape(-1, 3)
    undecided = p != np.float32(0.5)
    values = np.where(undecided, worth(p), 0)
    found = most_worth(p, undecided, count)
    assert len(found) == min(count, (values > 0).sum())
    assert undecided[tuple(found.T)].all()
    assert_array_equal(values[tuple(found.T)], np.sort(values, axis=None)[::-1][: len(found)])


def test_equal_pairs_come_in_the_order_of_queries() -> None:
    assert most_worth(np.full((3, 1), 0.5), np.full((3, 1), True), 3).tolist() == [[0, 0], [1, 0], [2, 0]]


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 2)])
def test_nothing_is_left_to_decide(shape: tuple[int, int]) -> None:
    assert most_worth(np.full(shape, 0.5), np.full(shape, False), 1).shape == (0, 2)
