"""HTML of a suspect: the query, its labelled documents, and the document that may be relevant, too."""

from __future__ import annotations

from .pair_texts import Suspect
from .shared_words import mark_shared, stems

# Labelled documents, and characters of a document, to show at most.
LABELLED = 3
LENGTH = 4000

CSS = """
.suspect { display: grid; gap: .7rem; color: var(--body-text-color, CanvasText);
  --line: var(--border-color-primary, color-mix(in srgb, CanvasText 25%, Canvas));
  --faint: color-mix(in srgb, var(--body-text-color, CanvasText) 70%, transparent); }
.suspect h2 { margin: 0; font-size: 1.15rem; line-height: 1.35; overflow-wrap: anywhere;
  white-space: pre-wrap; }
.suspect h3 { display: flex; justify-content: space-between; gap: 1rem; margin: 0 0 .3rem; font-size: .85rem;
  font-weight: 600; color: var(--faint); }
.suspect .pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr));
  gap: .7rem; align-items: start; }
.suspect section { min-width: 0; padding: .7rem .8rem; border: 1px solid var(--line); border-radius: .6rem; }
.suspect section.found { border: 2px solid var(--color-accent, #4f46e5); }
.suspect p { margin: 0 0 .6rem; max-height: 14rem; overflow: auto; overflow-wrap: anywhere;
  white-space: pre-wrap; font-size: .9rem; line-height: 1.45; }
.suspect p:last-child { margin: 0; }
.suspect .found p { max-height: 22rem; }
.suspect .more { color: var(--faint); font-style: italic; }
.suspect mark { padding: 0 .1em; border-radius: .2em; color: inherit;
  background: color-mix(in srgb, #f5b301 38%, transparent); }
.suspect .probability { font-variant-numeric: tabular-nums; color: var(--body-text-color, CanvasText); }
"""


def suspect_html(suspect: Suspect, language: str) -> str:
    """Return the HTML of a suspect. The words that its document shares with the query are marked.

    Args:
        suspect: The suspect.
        language: Language of the words.

    Example:
        >>> html = suspect_html(Suspect("q", "d", "<b> horses", "A horse.", ["A mare."], 0.57), "english")
        >>> all(part in html for part in ("&lt;b&gt; <mark>horses</mark>", "A mare.", "57%"))
        True
    """
    asked, found = stems(suspect.query, language), stems(suspect.document[:LENGTH], language)
    labelled = [_text(text, asked, language) for text in suspect.labelled[:LABELLED]]
    more = len(suspect.labelled) - LABELLED
    if more > 0:
        labelled.append(f'<p class="more">and {more:,} more</p>')
    labelled = labelled or ['<p class="more">nothing</p>']
    return (
        f'<article class="suspect"><h2 dir="auto">{mark_shared(suspect.query, asked & found, language)}</h2>'
        f'<div class="pair"><section class="found"><h3>Is this relevant? <span class="probability">'
        f"{suspect.probability:.0%}</span></h3>{_text(suspect.document, asked, language)}</section>"
        f"<section><h3>Labelled as relevant</h3>{''.join(labelled)}</section>"
        "</div></article>"
    )


def _text(text: str, shared: frozenset[str], language: str) -> str:
    shown = mark_shared(text[:LENGTH], shared, language)
    cut = len(text) - LENGTH
    more = f' <span class="more">… and {cut:,} characters more</span>' if cut > 0 else ""
    return f'<p dir="auto">{shown}{more}</p>'
