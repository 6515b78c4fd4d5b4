"""Published heuristics for choosing hard negatives, as baselines: scores in, weights out."""

from .margin_pos import margin_pos_weights
from .oracle import oracle_weights
from .passage_sieve import passage_sieve_weights
from .rank_window import rank_window_weights
from .rocketqa_denoise import rocketqa_denoise_weights
from .simans import simans_weights
from .top_k import top_k_weights
from .top_k_perc_pos import top_k_perc_pos_weights
from .trisampler import trisampler_weights

__all__ = [
    "margin_pos_weights",
    "oracle_weights",
    "passage_sieve_weights",
    "rank_window_weights",
    "rocketqa_denoise_weights",
    "simans_weights",
    "top_k_perc_pos_weights",
    "top_k_weights",
    "trisampler_weights",
]
