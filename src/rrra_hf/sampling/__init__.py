"""Strategies that turn scores of negatives into weights: arrays in, arrays out."""

from .rrra import draw_negatives, rrra_weights

__all__ = ["draw_negatives", "rrra_weights"]
