"""The losses take what their parents take, alone and inside of losses around losses."""

from __future__ import annotations

import inspect
import random
import re
import warnings
from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    AdaptiveLayerLoss,
    CachedMultipleNegativesRankingLoss,
    Matryoshka2dLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor, nn

from loss_options import ALL
from rrra_hf import RRRAModel
from rrra_hf.losses import CachedRRRALoss, RRRALoss

BATCH, NEGATIVES = 4, 2
PARENTS = {RRRALoss: MultipleNegativesRankingLoss, CachedRRRALoss: CachedMultipleNegativesRankingLoss}
TEXTS = [
    ["how do i list files", "copy a file", "sort text", "old query"],
    ["list files", "copy file to folder", "sort line of text", "new query"],
    ["find files", "copy text", "list of lines", "old passage"],
    ["files in a folder", "old folder", "find text", "query text"],
]
# All that the parents take: which logits, how they are joined, and which are harder.
GRID = [
    {
        "directions": directions,
        "partition_mode": partition,
        "hardness_mode": hardness,
        "hardness_strength": 3.0,
    }
    for count in range(len(ALL))
    for directions in (("query_to_doc", *others) for others in combinations(ALL[1:], count))
    for partition, hardness in product(
        ("joint", "per_direction"), (None, "in_batch_negatives", "hard_negatives", "all_negatives")
    )
]


@pytest.mark.parametrize("loss", PARENTS)
def test_every_option_of_the_parent_is_there_with_its_default(loss: type) -> None:
    ours, theirs = (inspect.signature(kind).parameters for kind in (loss, PARENTS[loss]))
    for place, (name, option) in enumerate(theirs.items()):
        assert name in ours, name
        assert ours[name].default == option.default, name
        assert list(ours).index(name) == place, name


@pytest.mark.parametrize("options", GRID)
def test_with_weights_of_1_any_combination_is_the_parent_to_the_last_bit(options: dict[str, Any]) -> None:
    model: Any = nn.Identity()
    try:
        parent = MultipleNegativesRankingLoss(model, **options)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            RRRALoss(model, **options)
        return
    generator = torch.Generator().manual_seed(0)
    embeddings = [torch.randn(BATCH, 8, generator=generator).requires_grad_() for _ in range(2 + NEGATIVES)]
    results = []
    for loss, labels in ((RRRALoss(model, **options), torch.ones(BATCH, NEGATIVES)), (parent, None)):
        value = loss.compute_loss_from_embeddings(embeddings, labels)
        results.append([value, *torch.autograd.grad(value, embeddings)])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))


@pytest.fixture(scope="module")
def model(tiny_bert: Path) -> SentenceTransformer:
    return RRRAModel.from_encoder(tiny_bert).to_sentence_transformer().eval()


def features(model: SentenceTransformer) -> list[dict[str, Tensor]]:
    return [model.preprocess(column) for column in TEXTS]


def value_and_gradients(model: SentenceTransformer, loss: nn.Module, labels: Tensor | None) -> list[Tensor]:
    model.zero_grad()
    # Layers and dimensions are drawn.
    random.seed(0)
    value = loss(features(model), labels)
    value.backward()
    return [value.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


WRAPPERS: list[Callable[[SentenceTransformer, nn.Module], nn.Module]] = [
    lambda model, loss: AdaptiveLayerLoss(model, loss),
    lambda model, loss: AdaptiveLayerLoss(model, loss, n_layers_per_step=-1, layer_weighting="log"),
    lambda model, loss: Matryoshka2dLoss(model, loss, [32, 16, 8]),
    lambda model, loss: MatryoshkaLoss(model, loss, [32, 16, 8], n_dims_per_step=2),
]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_inside_of_another_loss_weights_of_1_are_the_parent(
    model: SentenceTransformer, wrap: Callable[[SentenceTransformer, nn.Module], nn.Module]
) -> None:
    theirs = value_and_gradients(model, wrap(model, MultipleNegativesRankingLoss(model)), None)
    ours = value_and_gradients(
        model, wrap(model, RRRALoss(model, mask_known_positives=False)), torch.ones(BATCH, NEGATIVES)
    )
    assert len(ours) == len(theirs) > 1
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_inside_of_another_loss_weights_count(
    model: SentenceTransformer, wrap: Callable[[SentenceTransformer, nn.Module], nn.Module]
) -> None:
    """Of weight 0 in every column, negatives are as removed, in every layer and dimension."""
    loss = wrap(model, RRRALoss(model, mask_known_positives=False))
    removed = value_and_gradients(model, loss, torch.zeros(BATCH, NEGATIVES))[0]
    assert removed < value_and_gradients(model, loss, torch.ones(BATCH, NEGATIVES))[0]


def test_a_loss_of_layers_warns_of_cached_ones_as_of_the_parent(model: SentenceTransformer) -> None:
    for loss in (CachedRRRALoss(model), CachedMultipleNegativesRankingLoss(model)):
        with pytest.warns(UserWarning, match="not compatible"):
            AdaptiveLayerLoss(model, loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MatryoshkaLoss(model, CachedRRRALoss(model), [32, 8])
