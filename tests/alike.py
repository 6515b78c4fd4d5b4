"""Compares what two model instances compute.

The weights of one that was loaded may lie elsewhere in memory, and its sums be rounded otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.testing import assert_allclose

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def assert_alike(found: Any, expected: Any) -> None:
    """Check that arrays or numbers are equal to five places, and everything around them exactly."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        assert_alike(list(found.values()), list(expected.values()))
    elif isinstance(expected, list | tuple):
        assert type(found) is type(expected) and len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert_allclose(found.detach().double(), expected.detach().double(), **TOLERANCE)
    elif isinstance(expected, float | np.ndarray):
        assert_allclose(found, expected, **TOLERANCE)
    else:
        assert found == expected
