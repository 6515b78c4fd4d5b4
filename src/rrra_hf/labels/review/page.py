"""One HTML page of suspects that needs nothing but itself, for people without a server."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from html import escape

import numpy as np

from ...candidates import CandidatePool
from ...data import Collection
from ...evaluation.checks import check_count
from ...indexes.language import language_of
from ...models.files_rrra import write_aside
from .decisions import Decisions
from .pair_texts import PairTexts, Suspect
from .recalibration import decided, recalibrate
from .suspect_html import CSS, suspect_html

SUSPECTS = 100
STYLE = f"""
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif; }}
body {{ max-width: 60rem; margin: 0 auto; padding: 1rem 1rem 6rem; }}
h1 {{ font-size: 1.4rem; }}
table {{ border-collapse: collapse; }}
td {{ padding: .2rem 1.2rem .2rem 0; overflow-wrap: anywhere; }}
td + td {{ font-variant-numeric: tabular-nums; }}
ol {{ margin: 0; padding: 0; list-style: none; }}
li {{ margin: 1rem 0; padding: .8rem; border: 2px solid transparent; border-radius: .8rem; }}
li:focus {{ outline: none; border-color: #4f46e5; }}
li[data-decided] {{ opacity: .6; }}
li[data-decided=true]::before {{ content: "relevant"; color: #16a34a; font-weight: 700; }}
li[data-decided=false]::before {{ content: "not relevant"; color: #dc2626; font-weight: 700; }}
footer {{ position: fixed; inset: auto 0 0; display: flex; gap: 1rem; align-items: center;
  justify-content: center; padding: .6rem; background: Canvas; border-top: 1px solid; }}
kbd {{ padding: 0 .35em; border: 1px solid; border-radius: .3em; }}
{CSS}"""
# Decisions stay in the page until they are saved as a file of `Decisions`.
SCRIPT = """
const items = [...document.querySelectorAll("li")], done = [];
let at = 0, saved = true;
const show = place => { at = Math.max(0, Math.min(place, items.length - 1)); items[at].focus();
  items[at].scrollIntoView({ block: "start" }); };
const count = () => document.querySelector("output").textContent = `${done.length} decided`;
const decide = relevant => { const item = items[at]; item.dataset.decided = relevant; saved = false;
  if (!done.includes(item)) done.push(item); count(); show(at + 1); };
const undo = () => { const item = done.pop(); if (!item) return; delete item.dataset.decided; count();
  show(items.indexOf(item)); };
const keys = { y: () => decide(true), n: () => decide(false), s: () => show(at + 1), u: undo };
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !keys[event.key]) return;
  event.preventDefault(); keys[event.key](); });
items.forEach((item, place) => item.addEventListener("focusin", () => at = place));
document.querySelector("button").addEventListener("click", () => {
  const lines = done.map(item => JSON.stringify({ query_id: JSON.parse(item.dataset.query),
    document_id: JSON.parse(item.dataset.document), relevant: item.dataset.decided === "true", by: "person",
    probability: Number(item.dataset.probability) }) + "\\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(lines)); link.download = "decisions.jsonl"; link.click();
  saved = true; });
window.addEventListener("beforeunload", event => { if (!saved) event.preventDefault(); });
"""


def write_page(
    path: str | os.PathLike[str],
    collection: Collection,
    pool: CandidatePool,
    decisions: Decisions,
    counts: Sequence[tuple[str, str]],
    *,
    suspects: int = SUSPECTS,
) -> None:
    """Write a page of the most probable suspects that aren't decided.

    The page loads nothing, and its bytes depend only on what is given. The keys y, n, s and u decide, skip
    and undo. A button saves what was decided as `decisions.jsonl`, whose lines can be added to those of an
    audit.

    Args:
        path: The file.
        collection: The collection.
        pool: Its candidates with their probabilities.
        decisions: What was decided. The probabilities follow it.
        counts: What is shown on top: labels and values.
        suspects: Number of suspects at most.

    Raises:
        ValueError: If the pool has no probabilities or other documents than the collection, or `suspects` is
            less than 1.
        OSError: If the file can't be written.
    """
    check_count("suspects", suspects)
    found = most_probable(collection, pool, decisions, suspects)
    language = language_of(collection.document_texts)
    content = _page(collection.name, "".join(_item(suspect, language) for suspect in found), counts)
    with write_aside(path) as new:
        new.write_text(content, encoding="utf-8", errors="replace", newline="\n")


def most_probable(
    collection: Collection, pool: CandidatePool, decisions: Decisions, count: int
) -> list[Suspect]:
    """Return the most probable pairs that aren't decided, as far as they have a probability above 0.

    Args:
        collection: The collection.
        pool: Its candidates with their probabilities.
        decisions: What was decided. The probabilities follow it.
        count: Number of pairs at most.

    Raises:
        ValueError: If the pool has no probabilities or other documents than the collection.
    """
    probability = recalibrate(pool, decisions)[0].probability
    assert probability is not None
    values = np.where(np.isnan(decided(pool, decisions)[0]), np.nan_to_num(probability, nan=0.0), 0.0)
    places = np.argsort(-values, axis=None, kind="stable")[:count]
    pairs = np.column_stack(np.unravel_index(places[values.flat[places] > 0], values.shape))
    texts = PairTexts(collection, pool)
    return [texts.suspect(row, place, float(values[row, place])) for row, place in pairs]


def _page(name: str, items: str, counts: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><td>{escape(label)}</td><td>{escape(value)}</td></tr>" for label, value in counts)
    # Even if a text became HTML, nothing of it would run and nothing would be loaded.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src '{_digest(SCRIPT)}'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Missing labels in {escape(name)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>Missing labels in {escape(name)}</h1><table>{rows}</table><ol>{items}</ol>\n"
        "<footer><span><kbd>y</kbd> relevant <kbd>n</kbd> not relevant <kbd>s</kbd> skip "
        "<kbd>u</kbd> undo</span><output>0 decided</output><button>Save decisions</button></footer>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _item(suspect: Suspect, language: str) -> str:
    ids = (
        f'data-{kind}="{escape(json.dumps(value))}"'
        for kind, value in (("query", suspect.query_id), ("document", suspect.document_id))
    )
    return (
        f'<li tabindex="0" {" ".join(ids)} data-probability="{suspect.probability:.6f}">'
        f"{suspect_html(suspect, language)}</li>\n"
    )


def _digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
