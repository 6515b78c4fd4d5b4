"""Word indexes that were built before, in the folder where embeddings are cached."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import Stemmer

from ..embeddings.fingerprint import texts_fingerprint
from ..embeddings.shards import claimed, keep_only, remove_leftovers
from .words import WordIndex

logger = logging.getLogger(__name__)

# Another number is another index. Raise it when the words of texts or their weights are computed differently.
VERSION = 1


def index_words(
    texts: Sequence[str],
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    show_progress_bar: bool | None = None,
) -> WordIndex:
    """Index the words of texts, or open the index that was built of the same texts before.

    Args:
        texts: The documents.
        cache_dir: Cache folder, which may be that of `encode`. Each index is a folder in it that you can
            delete at any time. None builds the index anew.
        show_progress_bar: Show a progress bar; by default, only on a terminal.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> first, second = (index_words(["A dog barks."], folder) for _ in range(2))
        >>> first.vocabulary.tolist() == second.vocabulary.tolist(), len(os.listdir(folder))
        (True, 1)
    """
    if cache_dir is None:
        return WordIndex.of(texts, show_progress_bar=show_progress_bar)
    # Stemmers and tables of characters differ between versions of libraries.
    settings = [str(VERSION), Stemmer.version(), unicodedata.unidata_version]
    path = Path(cache_dir) / f"words-{texts_fingerprint([*settings, *texts])}" / "index"
    words = _cached(path)
    if words is not None:
        remove_leftovers(path)
        return words
    # Of several processes, one builds it.
    with claimed(path, wait=True):
        words = _cached(path)
        if words is None:
            words = WordIndex.of(texts, show_progress_bar=show_progress_bar)
            words.save(path)
        keep_only(path.parent, path.name)
    return words


def _cached(path: Path) -> WordIndex | None:
    if not path.exists():
        return None
    try:
        return WordIndex.load(path)
    except (OSError, ValueError) as error:
        logger.warning("The cached word index is damaged and is built again: %s", error)
        return None
