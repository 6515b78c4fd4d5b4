"""The page of `rrra demo`: all that it found, with pictures, in one file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ..app.comparison import Comparison
from ..app.page import CSS as RANKINGS
from ..app.page import comparison_html
from ..evaluation.reliability_plot import draw_reliability
from ..evaluation.svg import inline_svg, svg_of
from ..indexes.language import language_of
from ..labels.review.suspect_html import CSS as SUSPECTS
from ..labels.review.suspect_html import suspect_html
from ..models.files_rrra import write_aside
from .demo_run import FITTED, TRAINED, Demo

try:
    # Missing at once, and not after all that is to be drawn was found.
    import matplotlib as matplotlib
except ImportError as error:
    raise ImportError("The page of the demo needs matplotlib: pip install 'rrra-hf[demo]'.") from error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = f"""
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; --body-text-color: CanvasText;
  --border-color-primary: color-mix(in srgb, CanvasText 25%, Canvas);
  --background-fill-secondary: Canvas; --color-accent: #4f46e5; }}
body {{ max-width: 64rem; margin: 0 auto; padding: 1rem 1rem 4rem; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.5rem; }}
h2 {{ margin-top: 2.5rem; font-size: 1.25rem; }}
h3 {{ font-size: 1.05rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--border-color-primary); }}
th, td + td {{ text-align: right; }}
th:first-child {{ text-align: left; }}
figure {{ margin: 1rem 0; }}
svg {{ max-width: 100%; height: auto; background: white; }}
article {{ margin: 1.5rem 0; }}
{RANKINGS}{SUSPECTS}
.rankings {{ margin: 0; }}
"""
BARS, POINTS = (7, 2.4), (5, 3.6)


def write_demo_page(path: Path, demo: Demo, searches: Mapping[str, Comparison], suspects: int) -> None:
    """Write the page. Equal findings are equal bytes.

    Args:
        path: The file.
        demo: What was found.
        searches: Rankings without and with the adapter, by query.
        suspects: Number of missing labels to show.

    Raises:
        OSError: If the file can't be written.
    """
    title = "rrra demo: the documentation of your Python packages"
    sections = "\n".join(
        (_measured(demo), _searched(searches), _probabilities(demo), _missing(demo, suspects))
    )
    # Even if a text became HTML, nothing of it would run and nothing would be loaded.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    content = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{title}</h1>\n{sections}\n</body></html>\n"
    )
    with write_aside(path) as new:
        new.write_text(content, encoding="utf-8", errors="replace", newline="\n")


def _measured(demo: Demo) -> str:
    queries = {name: len(qrels) for name, qrels in demo.collection.qrels_by_split.items()}
    measures = list(next(iter(demo.systems.values())))
    head = "".join(f"<th>{measure}</th>" for measure in measures)
    rows = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td>{row[measure]:.3f}</td>' for measure in measures)}</tr>"
        for name, row in demo.systems.items()
    )
    bars = svg_of(lambda figure: _draw_bars(figure, demo.systems, measures[0]), BARS)
    training = f"<p>{escape(demo.training)}</p>" if demo.training else ""
    return (
        "<h2>Do questions find their documents?</h2>\n"
        f"<p>The {len(demo.collection.document_ids):,} documents are docstrings without their first "
        "sentences, which are the questions. The adapter was fitted to the labels of "
        f"{queries['train']:,} questions. These are the means of {queries['test']:,} others.</p>\n"
        f"{inline_svg(bars, 'bars-')}\n"
        f"<table><tr><th></th>{head}</tr>{rows}</table>{training}"
    )


def _draw_bars(figure: Figure, systems: dict[str, dict[str, float]], measure: str) -> None:
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    names = list(systems)
    colours = ["C0" if name in (FITTED, TRAINED) else "0.7" for name in names]
    bars = axes.barh(names, [systems[name][measure] for name in names], color=colours)
    axes.bar_label(bars, fmt="%.3f", padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel(measure)


def _searched(searches: Mapping[str, Comparison]) -> str:
    rankings = "\n".join(
        f"<h3>{escape(query)}</h3>{comparison_html(found)}" for query, found in searches.items()
    )
    return f"<h2>What changes in a search?</h2>\n{rankings}"


def _probabilities(demo: Demo) -> str:
    bins = demo.reliability
    plot = svg_of(
        lambda figure: draw_reliability(
            figure.add_subplot(), bins.mean_probability, bins.share, bins.num_pairs
        ),
        POINTS,
    )
    return (
        "<h2>Can you believe the probabilities?</h2>\n"
        "<p>Of the documents found for held-out questions: how many are labelled, by probability, with 95 % "
        "intervals. On the diagonal, probabilities and labels agree.</p>\n"
        f"{inline_svg(plot, 'reliability-')}"
    )


def _missing(demo: Demo, count: int) -> str:
    language = language_of(demo.collection.document_texts)
    rows = "".join(
        f"<tr><td>{escape(label)}</td><td>{escape(value)}</td></tr>" for label, value in demo.audit.counts()
    )
    suspects = "\n".join(suspect_html(suspect, language) for suspect in demo.audit.suspects(count))
    return (
        "<h2>Which labels are missing?</h2>\n"
        "<p>Documents that nobody labelled, and that probably answer the question, too. In training they "
        f"would be false negatives.</p>\n<table>{rows}</table>\n{suspects}"
    )
