"""Work in the middle of a training that leaves no trace in it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, then restore its modes and the global random number generators.

    Args:
        model: The model that is trained.

    Example:
        >>> model = nn.Dropout().train()
        >>> with undisturbed(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    modes = {module: module.training for module in model.modules()}
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    model.eval()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        for module, training in modes.items():
            module.training = training
