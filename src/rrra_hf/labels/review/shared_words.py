"""Words that texts share, marked in HTML."""

from __future__ import annotations

from functools import cache
from html import escape
from itertools import pairwise

from ...indexes.tokenize import characters_of, is_unspaced, run_spans, runs_of, stems_of


def stems(text: str, language: str) -> frozenset[str]:
    """Return the stems of the words of a text, without stop words, as `WordIndex` finds them.

    Args:
        text: The text.
        language: Language of the words.

    Example:
        >>> sorted(stems("The horses' stable", "english"))
        ['hors', 'stabl']
    """
    return frozenset(stem for run in runs_of(text) for stem in stems_of(run, language))


def mark_shared(text: str, shared: frozenset[str], language: str) -> str:
    """Return a text as HTML in which the words of some stems are marked.

    Everything else is shown as it is: a text can't add elements to the page.

    Args:
        text: The text.
        shared: The stems.
        language: Language of the words.

    Example:
        >>> mark_shared("A <b>horse</b>", stems("horses", "english"), "english")
        'A &lt;b&gt;<mark>horse</mark>&lt;/b&gt;'
    """

    @cache
    def is_shared(run: str) -> bool:
        return not shared.isdisjoint(stems_of(run, language))

    parts, end = [], 0
    for start, stop in run_spans(text):
        run = text[start:stop]
        if is_unspaced(run):
            marked = _mark_characters(run, shared, language)
        elif is_shared(run):
            marked = f"<mark>{escape(run)}</mark>"
        else:
            continue
        parts += [escape(text[end:start]), marked]
        end = stop
    return "".join([*parts, escape(text[end:])])


def _mark_characters(run: str, shared: frozenset[str], language: str) -> str:
    """Mark the characters of shared words in scripts without spaces, whose words are two characters."""
    characters = characters_of(run)
    if len(characters) == 1:
        marked = [not shared.isdisjoint(stems_of(run, language))]
    else:
        words = [not shared.isdisjoint(stems_of(a + b, language)) for a, b in pairwise(characters)]
        marked = [before or after for before, after in zip([False, *words], [*words, False], strict=True)]
    html = "".join(
        f"<mark>{escape(character)}</mark>" if is_marked else escape(character)
        for character, is_marked in zip(characters, marked, strict=True)
    )
    return html.replace("</mark><mark>", "")
