"""The adapter with a part of it changed or left out, reranking what the encoder finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..candidates import mine_embeddings
from ..candidates.labelled import RetrievedCandidates
from ..fitting.residual import fit_head
from ..fitting.tuning import calibrate, choose_lambda
from ..models.adapter_rrra import AdapterOutput, RetrieverAdapter
from ..models.configuration_rrra import AdapterConfig
from ..models.features_rrra import FEATURES
from .methods import Method, register
from .ranking import Rank, ranked_by, searcher
from .systems import (
    by_features,
    encoder,
    features,
    reranked,
    two_sided_map,
    two_sided_map_adapter,
    without_features,
)
from .trial import Trial

READOUTS = {"cos-qa": "cos(q, a)", "cos-ac": "cos(a, c)", "cos-qc": "cos(q, c)"}


class RandomStart(RetrieverAdapter):
    """An adapter that starts away from `a = c`: its last layer is random, as any other."""

    def reset_parameters(self) -> None:
        """Set the starting point, the MLP's last layer a random one."""
        super().reset_parameters()
        self.output_layer.reset_parameters()


class NoResidual(RandomStart):
    """An adapter whose output is the MLP's alone: `a = MLP(...)`, which then can't start at `c`."""

    def _read_out(self, q: Tensor, adapted: Tensor, c: Tensor, product: Tensor) -> AdapterOutput:
        return super()._read_out(q, adapted - c, c, product)


def without_readout(place: int) -> Callable[[AdapterConfig], RetrieverAdapter]:
    """Return what makes an adapter in which one of the three cosines is not read.

    Args:
        place: Which of `READOUTS`.
    """

    def make(config: AdapterConfig) -> RetrieverAdapter:
        adapter = RetrieverAdapter(config)
        weight = adapter.readout.weight
        with torch.no_grad():
            if place == 0:  # the one the readout starts with: start with the retriever's cosine instead
                weight[:, 2] = weight[:, 0]
            weight[:, place] = 0.0
        mask = torch.ones_like(weight)
        mask[:, place] = 0.0
        weight.register_hook(lambda gradient: gradient * mask)
        return adapter

    return make


def fit_variant(trial: Trial, make: Callable[[AdapterConfig], RetrieverAdapter]) -> Rank:
    """Fit an adapter of another build just as `fit_adapter` does, and return the reranking search.

    Args:
        trial: The trial.
        make: Makes the adapter.
    """
    arguments = replace(trial.arguments.fit, seed=trial.seed)
    training, documents = trial.training.labelled, trial.task.documents
    mined = mine_embeddings(
        training.embeddings, documents, training.positives, depth=arguments.depth
    ).candidates
    retrieved = RetrievedCandidates.retrieve(trial.development.labelled, documents, arguments.depth)
    adapter = fit_head(training, mined, documents, retrieved, arguments, make)
    calibrate(adapter, retrieved, documents)
    choose_lambda(adapter, retrieved, documents)
    return searcher(documents, arguments.depth, adapter=adapter)


def _add(name: str, about: str, fit: Callable[[Trial], Rank], **options: Any) -> None:
    register(Method("ablations", name, about, ranked_by(fit), **options))


def _changed(**changes: Any) -> Callable[[Trial], Rank]:
    return lambda trial: reranked(trial, replace(trial.arguments.fit, **changes))


def _built(make: Callable[[AdapterConfig], RetrieverAdapter]) -> Callable[[Trial], Rank]:
    return lambda trial: fit_variant(trial, make)


def _without(name: str) -> Callable[[Trial], Rank]:
    return lambda trial: by_features(trial, without_features(name))


_add("full", "the adapter as it is", _changed())
_add("stage-none", "the encoder alone", encoder, seeded=False)
_add("stage-maps", "two-sided maps alone", two_sided_map)
_add("stage-maps-and-adapter", "the adapter on two-sided maps", two_sided_map_adapter)
_add("no-residual", "a = MLP(...), not c + MLP(...)", _built(NoResidual))
_add("random-start", "the last layer starts at random, not at zero", _built(RandomStart))
for _place, (_name, _cosine) in enumerate(READOUTS.items()):
    _add(f"without-{_name}", f"{_cosine} is not read", _built(without_readout(_place)))
_add("linear-skip", "a linear path beside the MLP", _changed(linear_skip=True))
_add("segment-constraint", "a kept near the segment from c to q", _changed(segment_weight=1.0))
_add("objective-bce", "class-balanced binary cross-entropy", _changed(objective="bce"))
_add("objective-four-class", "the retriever's four outcomes", _changed(objective="four_class"))
_add(
    "bce-without-class-ratio",
    "binary cross-entropy, every pair weighing the same",
    _changed(objective="bce", class_balance=False),
)
_add(
    "four-class-without-class-ratio",
    "the four outcomes, every pair weighing the same",
    _changed(objective="four_class", class_balance=False),
)
_add(
    "objective-positive-unlabelled",
    "binary, candidates unlabelled with prior .05",
    _changed(objective="bce", class_prior=0.05),
)
_add("score-product", "the published product of score and probability", _changed(scoring="product"))
_add("features", "maps, and a head that reads all features", features)
for _piece in FEATURES:
    _add(f"features-without-{_piece}", f"the same without {_piece}", _without(_piece))
