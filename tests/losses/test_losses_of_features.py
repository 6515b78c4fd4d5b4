"""Losses and adapters that read features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rrra_hf import RRRAModel
from rrra_hf.candidates import mine_collection
from rrra_hf.data import Collection
from rrra_hf.embeddings import embed_collection
from rrra_hf.losses import CachedRRRALoss, RRRALoss


@pytest.mark.parametrize("loss", [RRRALoss, CachedRRRALoss])
def test_losses_that_ask_the_adapter_refuse_features(loss: type, feature_model: RRRAModel) -> None:
    encoder = feature_model.to_sentence_transformer()
    for options in ({"source": "adapter"}, {"adapter_weight": 0.5}):
        with pytest.raises(ValueError, match="need a residual adapter, as ResidualFitArguments fits it"):
            loss(encoder, **options)


def test_losses_take_the_probabilities_of_a_pool(
    feature_model: RRRAModel, feature_collection: Collection
) -> None:
    encoder, part = feature_model.to_sentence_transformer(), feature_collection.split("train")
    pool = mine_collection(part, embed_collection(part, encoder), 3)
    pool = replace(pool, probability=np.full(pool.candidates.shape, 0.2, np.float32))
    assert RRRALoss(encoder, pool=pool).pool is pool
