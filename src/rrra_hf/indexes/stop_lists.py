"""Stop words: words of a language that are in most texts and say nothing about their subject."""

from __future__ import annotations

from functools import cache

import Stemmer

# Plain words, neither stemmed nor left out.
NONE = "none"
# The language that most stop words in the texts are of.
AUTO = "auto"
# Other variants of English and Dutch.
_VARIANTS = {"porter", "lovins", "dutch_porter", "kraaij_pohlmann"}
LANGUAGES = (*sorted(set(Stemmer.algorithms()) - _VARIANTS), NONE)
# The lists of bm25s are those of NLTK. The other library has more languages, but its 1,300 words of English,
# such as "find", cost 0.008 nDCG@10 (mean of 20 collections).
_FROM_BM25S = {
    "dutch": "DUTCH",
    "english": "EN_PLUS",
    "french": "FRENCH",
    "german": "GERMAN",
    "italian": "ITALIAN",
    "norwegian": "NORWEGIAN",
    "portuguese": "PORTUGUESE",
    "russian": "RUSSIAN",
    "spanish": "SPANISH",
    "swedish": "SWEDISH",
}
_FROM_STOP_WORDS = {
    "arabic",
    "catalan",
    "czech",
    "danish",
    "finnish",
    "hindi",
    "hungarian",
    "indonesian",
    "persian",
    "polish",
    "romanian",
    "turkish",
}
# Words of questions, which passages rarely have and which would therefore weigh a lot.
_ADDED = {"english": ("could", "would")}
# Languages with stop words. Any other has to be named.
LISTED = tuple(language for language in LANGUAGES if language in {*_FROM_BM25S, *_FROM_STOP_WORDS})


def check_language(language: str) -> None:
    """Check that the words of texts can be told by a language.

    Raises:
        ValueError: If it is neither "auto" nor one of `LANGUAGES`.
    """
    legal = (AUTO, *LANGUAGES)
    if language not in legal:
        raise ValueError(f"language must be one of {', '.join(legal)}; got {language!r}.")


@cache
def stop_words(language: str) -> tuple[str, ...]:
    """Return the stop words of a language, none if there is no list.

    Args:
        language: One of `LANGUAGES`.

    Example:
        >>> "could" in stop_words("english"), stop_words("none")
        (True, ())
    """
    # Imported here because bm25s imports numba and jax, if they are installed.
    import bm25s.stopwords
    from stop_words import get_stop_words

    if language in _FROM_BM25S:
        words = getattr(bm25s.stopwords, f"STOPWORDS_{_FROM_BM25S[language]}")
    else:
        words = get_stop_words(language) if language in _FROM_STOP_WORDS else ()
    return (*words, *_ADDED.get(language, ()))
