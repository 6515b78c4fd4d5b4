"""Strategies with another loss, on top-k negatives."""

from __future__ import annotations

from ..losses import CCRLoss, DebiasedContrastiveLoss
from .chances import Strategy
from .heuristics import top_k
from .registry import add

add("ccr", "CCR loss on top-k negatives", Strategy(top_k, lambda model, scale: CCRLoss(model), False))
add(
    "debiased",
    "debiased contrastive loss on top-k negatives",
    Strategy(top_k, lambda model, scale: DebiasedContrastiveLoss(model, scale=scale), False),
)
