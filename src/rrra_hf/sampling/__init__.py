"""Strategies that turn scores of negatives into weights: arrays in, arrays out.

Each takes scores `(n, k)` of each query's candidates, -inf where there is none, and what else it needs;
it returns unnormalised weights `(n, k)` of at least 0, which are 0 where there is no candidate. A row in
which nothing is left is all 0, which `draw` refuses; only the passage sieve always keeps one.
"""

from .above_positive import set_aside_above_positive
from .drawing import draw
from .margin_pos import margin_pos_weights
from .oracle import oracle_weights
from .passage_sieve import passage_sieve_weights
from .rank_window import rank_window_weights
from .rocketqa_denoise import rocketqa_denoise_weights
from .rrra import draw_negatives, rrra_strategy, rrra_weights
from .simans import simans_weights
from .top_k import top_k_weights
from .top_k_perc_pos import top_k_perc_pos_weights
from .trisampler import trisampler_weights

__all__ = [
    "draw",
    "draw_negatives",
    "margin_pos_weights",
    "oracle_weights",
    "passage_sieve_weights",
    "rank_window_weights",
    "rocketqa_denoise_weights",
    "rrra_strategy",
    "rrra_weights",
    "set_aside_above_positive",
    "simans_weights",
    "top_k_perc_pos_weights",
    "top_k_weights",
    "trisampler_weights",
]
