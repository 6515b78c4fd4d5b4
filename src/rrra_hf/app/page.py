"""HTML of the two rankings. Documents and queries are always escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .comparison import Comparison, PlacedHit

# Maximum number of characters of a document to show.
EXCERPT_LENGTH = 280
NO_ADAPTER = "This retriever has no adapter, so there is no reranking and there are no probabilities."

# Where possible, colours come from the Gradio theme, which has a light and a dark mode.
CSS = """
.rankings { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  gap: 1.5rem; }
/* Gradio adds a padding of 12 pixels. */
.rankings, .problem { margin: 0 -12px;
  color: var(--body-text-color); --faint: color-mix(in srgb, var(--body-text-color) 70%, transparent); }
.ranking { min-width: 0; }
.ranking h2 { margin: 0 0 .6rem; font-size: 1.05rem; font-weight: 600; }
.ranking h2 small { margin-left: .4rem; font-size: .85rem; font-weight: 400; color: var(--faint); }
.ranking ol { display: grid; gap: .6rem; margin: 0; padding: 0; list-style: none; }
.hit { display: grid; grid-template-columns: 1.6rem minmax(0, 1fr) 5rem; gap: .2rem .7rem; margin: 0;
  padding: .7rem .8rem .7rem .4rem; border: 1px solid var(--border-color-primary); border-radius: .6rem;
  background: var(--background-fill-secondary); }
.hit .place { font-weight: 600; text-align: right; color: var(--faint); }
.hit .document { min-width: 0; overflow-wrap: anywhere; font-size: .9rem; line-height: 1.4; }
.hit h3 { margin: 0; font-size: .95rem; font-weight: 600; }
.hit p { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden;
  margin: 0; line-height: inherit; color: var(--faint); }
.hit .estimate { text-align: right; font-size: .85rem; font-variant-numeric: tabular-nums; }
.hit .probability { display: block; font-weight: 600; }
.hit .bar { display: block; height: .35rem; margin: .25rem 0 .35rem; border-radius: 1rem; overflow: hidden;
  background: var(--border-color-primary); }
.hit .bar i { display: block; height: 100%; background: var(--color-accent); }
.hit .move { white-space: nowrap; color: var(--faint); }
.hit .move.up { font-weight: 600; color: color-mix(in srgb, #16a34a 75%, var(--body-text-color)); }
.hit .move.down { color: color-mix(in srgb, #d97706 75%, var(--body-text-color)); }
.message { padding: .8rem 1rem; border: 1px solid var(--border-color-primary); border-radius: .6rem; }
.problem { border-color: #dc2626; }
"""


def comparison_html(comparison: Comparison) -> str:
    """Render both rankings, side by side if there is room.

    Args:
        comparison: Rankings returned by `compare`.

    Example:
        >>> hit = PlacedHit(1, 3, "", "<b>copy</b> a file", probability=0.57)
        >>> html = comparison_html(Comparison([], [hit]))
        >>> all(text in html for text in ("up 2", "57%", "&lt;b&gt;copy&lt;/b&gt; a file"))
        True
    """
    by_cosine = "by cosine, with the adapter's maps" if comparison.mapped else "by cosine"
    encoder = _ranking("Without adapter", by_cosine, _hits(comparison.encoder))
    if comparison.reranked is None:
        content = f'<p class="message">{NO_ADAPTER}</p>'
    else:
        content = _hits(comparison.reranked, moves=True)
    reranked = _ranking("With adapter", "by reranking score", content)
    return f'<div class="rankings">{encoder}{reranked}</div>'


def problem_html(message: str) -> str:
    """Render an error message.

    Args:
        message: The message.
    """
    return f'<p class="message problem" role="alert">{escape(message)}</p>'


def _ranking(name: str, order: str, content: str) -> str:
    return (
        f'<section class="ranking" aria-label="{name}">'
        f"<h2>{name} <small>{order}</small></h2>{content}</section>"
    )


def _hits(hits: Sequence[PlacedHit], moves: bool = False) -> str:
    return f"<ol>{''.join(_hit(hit, _move(hit, len(hits)) if moves else '') for hit in hits)}</ol>"


def _hit(hit: PlacedHit, move: str) -> str:
    title = f"<h3>{escape(hit.title)}</h3>" if hit.title else ""
    return (
        f'<li class="hit"><span class="place">{hit.place}</span>'
        f'<div class="document">{title}<p>{escape(_excerpt(hit.text))}</p></div>'
        f'<div class="estimate">{_probability(hit.probability)}{move}</div></li>'
    )


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT_LENGTH else text[:EXCERPT_LENGTH].rstrip() + " …"


def _probability(probability: float | None) -> str:
    if probability is None:
        return ""
    percent = f"{probability:.0%}"
    return (
        f'<span class="probability" title="Probability that it is relevant">{percent}</span>'
        f'<span class="bar"><i style="width: {percent}"></i></span>'
    )


def _move(hit: PlacedHit, shown: int) -> str:
    """Describe how the adapter moved a hit. Hits that the encoder ranks below those shown are new."""
    if hit.place_before is None:
        return '<span class="move up" title="Found by its words">new, by words</span>'
    up = hit.place_before - hit.place
    if hit.place_before > shown:
        kind, words = "up", f"new, up {up}"
    elif up == 0:
        kind, words = "same", "same place"
    else:
        kind = "up" if up > 0 else "down"
        words = f"{kind} {abs(up)}"
    return f'<span class="move {kind}" title="Without adapter at place {hit.place_before}">{words}</span>'
