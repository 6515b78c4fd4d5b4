"""What tests of refreshes share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from refreshed import DEPTH, Run
from rrra_hf import RRRAModel
from rrra_hf.candidates import CandidatePool, mine
from rrra_hf.data import Collection
from tiny import word_collection


@pytest.fixture(scope="module")
def collection() -> Collection:
    """30 documents of six words; 26 training and 8 development queries of three words each."""
    return word_collection(30, train=26, dev=8)


@pytest.fixture
def make_model(tiny_bert: Path) -> Callable[[], RRRAModel]:
    def make() -> RRRAModel:
        torch.manual_seed(0)
        return RRRAModel.from_encoder(tiny_bert, adapter={"reader": {"kind": "residual", "hidden_size": 8}})

    return make


@pytest.fixture(scope="module")
def pool(collection: Collection, tiny_bert: Path) -> CandidatePool:
    """What the untrained encoder finds, with probabilities that change with the rank."""
    mined = mine(collection, SentenceTransformer(str(tiny_bert), device="cpu"), DEPTH)
    probability = np.broadcast_to(np.linspace(0.5, 0, DEPTH), mined.candidates.shape)
    return replace(mined, probability=probability)


@pytest.fixture
def make_run(
    make_model: Callable[[], RRRAModel], collection: Collection, pool: CandidatePool
) -> Callable[..., Run]:
    def make(**settings: Any) -> Run:
        return Run(make_model(), collection, pool, **settings)

    return make
