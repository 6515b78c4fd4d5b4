"""Which encoder a run keeps: the one that it started from, or one that it trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..fitting.data import PRIOR_QUERIES
from ..fitting.strength import smallest_within_one_standard_error

FROZEN = "frozen"
NAMES = {FROZEN: "as it came", "stage1": "of stage 1", "stage3": "of stage 3"}


class Choice(NamedTuple):
    """What `choose_encoder` returns.

    Args:
        encoder: The encoder that is kept: `"frozen"`, `"stage1"` or `"stage3"`.
        difference: Mean difference in nDCG@10, the better trained encoder minus the frozen one.
        standard_error: Its standard error over queries; None of a single query.
        sentence: The same in words.
    """

    encoder: str
    difference: float
    standard_error: float | None
    sentence: str


def choose_encoder(quality: Mapping[str, np.ndarray]) -> Choice:
    """Choose between the encoder as it came and the better one of those that were trained.

    The queries must be unseen: by the encoders, which were not trained on them, and by the adapters, which
    were fitted without them. Training queries won't do. An adapter can rank each of them out of fold, but a
    trained encoder has seen them all, and would win by what it remembers.

    A trained encoder is kept if its gain is more than one standard error of the paired differences, after
    `PRIOR_QUERIES` imagined queries without a difference are added: if `difference > standard_error * (1 +
    20 / queries)`. Always taking the higher mean would keep encoders that are worse, which costs more than a
    missed gain: they have to be stored, loaded and trusted. Asking for significance would throw away most
    gains, as there are often a hundred development queries and not a thousand. For an idea of what lies
    between, let true gains over a fitted adapter be distributed around 0 with a standard deviation of .02,
    and the differences of single queries with one of .2. Then, where the rule just keeps a trained encoder,
    the chance that it is worse is about one in five, with 25 queries (a gain of .07 is asked for) as with 400
    (.01). With 100 queries, a true gain of .03 is kept in 62 % of runs, with 200 in 85 %.

    Args:
        quality: nDCG@10 of each query by encoder, `(n,)` each, `"frozen"` among them.

    Source:
        The one-standard-error rule of Breiman et al. 1984, on paired differences.

    Example:
        >>> frozen, better = np.array([0.5, 0.6, 0.7] * 20), np.array([0.6, 0.8, 0.7] * 20)
        >>> choose_encoder({"frozen": frozen, "stage1": frozen, "stage3": better}).encoder
        'stage3'
        >>> choose_encoder({"frozen": frozen, "stage1": frozen, "stage3": frozen[::-1]}).encoder
        'frozen'
    """
    frozen = quality[FROZEN]
    best = max((name for name in quality if name != FROZEN), key=lambda name: quality[name].mean())
    differences = quality[best] - frozen
    n = len(differences)
    error = float(differences.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    kept = (FROZEN, best)[
        smallest_within_one_standard_error((0, 1), np.stack([frozen, quality[best]]), PRIOR_QUERIES)
    ]
    gain = float(differences.mean())
    return Choice(kept, gain, error, _sentence(kept, best, quality, gain, error))


def _sentence(
    kept: str, best: str, quality: Mapping[str, np.ndarray], gain: float, error: float | None
) -> str:
    queries = len(quality[FROZEN])
    helped = "helped" if kept != FROZEN else "did not help" if gain <= 0 else "did not clearly help"
    noise = "" if error is None else f" (standard error of the difference {error:.3f})"
    return (
        f"Training the encoder {helped}: with an adapter fitted to it, nDCG@10 of {queries} development "
        f"queries is {quality[FROZEN].mean():.3f} with the encoder as it came and "
        f"{quality[best].mean():.3f} with that {NAMES[best]}{noise}. The encoder {NAMES[kept]} is kept."
    )
