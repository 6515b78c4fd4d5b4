"""The language of texts, by their stop words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .stop_lists import LISTED, NONE
from .tokenize import folded_stop_words, runs_of, words_of

# Texts, and runs per text, to look at.
TEXTS = 1000
RUNS = 200
# Shares of words. Of shell commands, 0.040 are English stop words and 0.022 Polish ones; of Python code,
# 0.19 and 0.04; of prose, a third or more and less than 0.17.
MIN_SHARE = 0.03
MIN_LEAD = 0.015


def language_of(texts: Sequence[str]) -> str:
    """Return the language whose stop words are the greatest share of the words of a sample of texts.

    Args:
        texts: The texts.

    Returns:
        One of `LISTED`, or "none" if no language has a share that is clearly the greatest.

    Example:
        >>> language_of(["Der Hund ist im Garten."]), language_of(["狗在花园里。"])
        ('german', 'none')
    """
    sample = texts[:: max(1, len(texts) // TEXTS)]
    found = (word for text in sample for run in runs_of(text)[:RUNS] for word in words_of(run))
    # Single letters are also names of variables and options.
    words = Counter(word for word in found if len(word) > 1 and not word.isdecimal())
    total = max(1, sum(words.values()))
    shares = {name: sum(words[word] for word in folded_stop_words(name)) / total for name in LISTED}
    first, second = sorted(LISTED, key=shares.__getitem__, reverse=True)[:2]
    clear = shares[first] >= max(MIN_SHARE, shares[second] + MIN_LEAD)
    return first if clear else NONE
