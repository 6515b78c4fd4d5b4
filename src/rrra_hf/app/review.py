"""The page on which a person decides about suspects."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..candidates import CandidatePool
from ..data import Collection
from ..indexes.language import language_of
from ..labels.review.decisions import Decisions
from ..labels.review.suspect_html import CSS, suspect_html
from .blocks import MAX_WAITING, Page
from .reviewing import Progress, Review

NOTHING_LEFT = "Nothing is left to decide."
# A key presses its button. One that is held down, or belongs to the browser, doesn't.
KEYS = """
() => document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const button = document.getElementById("review-" + event.key);
  if (button) { event.preventDefault(); button.click(); } })
"""
# Gradio adds a padding of 12 pixels.
IN_LINE = ".progress, .suspect, .message { margin: 0 -12px; }"
PROGRESS_CSS = """
.progress { display: grid; gap: .4rem; color: var(--body-text-color); font-size: .9rem; }
.progress .bar { height: .4rem; border-radius: 1rem; overflow: hidden;
  background: var(--border-color-primary); }
.progress .bar i { display: block; height: 100%; background: var(--color-accent); }
.progress p { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .2rem 1.5rem; margin: 0; }
.message { padding: .8rem 1rem; border: 1px solid var(--border-color-primary); border-radius: .6rem; }
"""


def create_review(
    collection: Collection, pool: CandidatePool, decisions: Decisions, title: str | None = None
) -> gr.Blocks:
    """Create a page on which a person decides about suspects, those first that are worth most.

    The keys y, n, s and u say yes, no, skip and undo. Each decision is added before the next pair is shown,
    and so is on the disk if they are saved. Serve the page with `launch(theme=THEME)`. Several browsers may
    show it, but they review together.

    Args:
        collection: The collection.
        pool: Its candidates with their probabilities.
        decisions: What was decided, opened with `Decisions.open` to save what is decided here.
        title: Heading of the page; by default, it names the collection.

    Raises:
        ValueError: If the pool has no probabilities or other documents than the collection.

    Example:
        >>> from rrra_hf import load_collection
        >>> collection = load_collection([{"query": "what swims", "answer": "A fish."}])
        >>> pool = CandidatePool(
        ...     query_ids=collection.query_ids, document_ids=collection.document_ids, positives=[[]],
        ...     candidates=[[0]], scores=[[0.5]], probability=[[0.75]],
        ... )
        >>> page = create_review(collection, pool, Decisions())  # page.launch(theme=THEME)
    """
    review = Review(collection, pool, decisions)
    language = language_of(collection.document_texts)
    title = f"Missing labels in {collection.name}" if title is None else title

    def show() -> tuple[str, str, str]:
        suspect = review.suspect()
        card = (
            f'<p class="message">{NOTHING_LEFT}</p>' if suspect is None else suspect_html(suspect, language)
        )
        return review.shown, progress_html(review.progress()), card

    def saved(change: Any, *arguments: Any) -> tuple[str, str, str]:
        try:
            change(*arguments)
        except OSError as error:
            raise gr.Error(f"Nothing was saved: {error}", print_exception=False) from error
        return show()

    answers = {
        "y": ("Relevant (y)", lambda pair: saved(review.decide, pair, True)),
        "n": ("Not relevant (n)", lambda pair: saved(review.decide, pair, False)),
        "s": ("Skip (s)", lambda pair: saved(review.skip, pair)),
        "u": ("Undo (u)", lambda pair: saved(review.undo)),
    }
    with Page(title=title, analytics_enabled=False) as demo:
        gr.Markdown(f"# {title}")
        progress = gr.HTML(css_template=PROGRESS_CSS + IN_LINE, js_on_load=None)
        with gr.Row():
            buttons = {
                key: gr.Button(
                    label, elem_id=f"review-{key}", variant="primary" if key == "y" else "secondary"
                )
                for key, (label, _) in answers.items()
            }
        card = gr.HTML(css_template=CSS + IN_LINE, js_on_load=None)
        # The browser sends which pair it shows, so that an answer is never taken for one to another pair.
        pair = gr.Textbox(visible="hidden")
        outputs = [pair, progress, card]
        one_by_one: dict[str, Any] = {
            "concurrency_limit": 1,
            "concurrency_id": "review",
            "api_visibility": "private",
            "show_progress": "hidden",
        }
        for key, button in buttons.items():
            button.click(answers[key][1], [pair], outputs, **one_by_one)
        demo.load(show, None, outputs, **one_by_one)
        demo.load(None, js=KEYS)
    return demo.queue(max_size=MAX_WAITING, api_open=False)


def progress_html(progress: Progress) -> str:
    """Return the HTML of how far a review is.

    Args:
        progress: What `Review.progress` returned.
    """
    relevant, not_relevant, left, recalibration = progress
    share = relevant / max(relevant + left, 1e-9)
    found = f"{relevant:,} relevant, {not_relevant:,} not relevant; about {left:,.0f} missing labels left"
    followed = f"{recalibration.decisions:,} decision{'' if recalibration.decisions == 1 else 's'}"
    return (
        f'<div class="progress"><div class="bar"><i style="width: {share:.0%}"></i></div>'
        f"<p><span>{found}</span><span>Probabilities follow {followed}</span></p></div>"
    )
