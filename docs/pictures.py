"""Draw the pictures of the documentation: `python docs/pictures.py`.

`docs/pictures/data_flow.svg` shows the data flow. `docs/pictures/quality_cost.svg` plots quality against
cost, as measured by `make benchmark`. Both have a white background, so they can be read on a dark page.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from figures import ROOT, read_results

from rrra_hf.comparison.measures import NDCG
from rrra_hf.comparison.plots import plots_of

PICTURES = ROOT / "docs/pictures"
RESULTS = ROOT / "docs/results.md"
COLLECTION = "nl2bash"
METHODS = (
    "encoder",
    "bm25",
    "rrf",
    "mix",
    "pretrained",
    "residual",
    "query-map",
    "two-sided-map",
    "features",
)

WIDTH, HEIGHT = 880, 322
INK, LINE = "#1f2328", "#6e7781"
BLUE, YELLOW, GREEN = "#ddf4ff", "#fff8c5", "#dafbe1"
STYLE = f"""
text {{ font: 13px -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: {INK}; }}
.name {{ font-size: 16px; font-weight: 600; }}
.of-arrow {{ font-style: italic; }}
path {{ fill: none; stroke: {LINE}; stroke-width: 1.6; marker-end: url(#head); }}
rect {{ stroke: {LINE}; }}
"""


class Box(NamedTuple):
    """A box of the data flow.

    Args:
        name: Its title.
        lines: Two lines of text below the title.
        x: Left edge.
        y: Upper edge.
        fill: Fill colour.
        width: Width.
    """

    name: str
    lines: tuple[str, str]
    x: int
    y: int
    fill: str = BLUE
    width: int = 160

    def svg(self) -> str:
        """Return the box as SVG elements."""
        middle = self.x + self.width / 2
        texts = [_text(self.name, middle, self.y + 28, "name")]
        texts += [_text(line, middle, self.y + 50 + 18 * i) for i, line in enumerate(self.lines)]
        shape = (
            f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="84" rx="8" fill="{self.fill}"/>'
        )
        return "\n".join([shape, *texts])


TRAINING = ("mined documents that are probably relevant", "are no negatives")
BOXES = (
    Box("Collection", ("documents, queries,", "a few labelled pairs"), 20, 24),
    Box("Embeddings", ("of any encoder,", "or your own arrays"), 246, 24),
    Box("Candidates", ("by vectors and words", "for each query"), 472, 24),
    Box("Adapter", ("p = P(document is", "relevant to query)"), 698, 24, YELLOW),
    Box("Training", TRAINING, 246, 214, BLUE, 386),
    Box("Retriever", ("searches, reranks 150,", "gives each hit its p"), 698, 214, GREEN),
)
# Path, label, and position of the label.
ARROWS = (
    ("M180 66 H240", "encode", 210, 58),
    ("M406 66 H466", "mine", 436, 58),
    ("M632 66 H692", "fit", 662, 58),
    ("M738 108 V152 H500 V208", "false-negative probability", 619, 144),
    ("M796 108 V208", "reranks", 828, 164),
    ("M326 214 V114", "encodes again", 384, 166),
    ("M632 256 H692", "model", 660, 248),
)


def data_flow() -> str:
    """Return the data flow as an SVG document."""
    arrows = [f'<path d="{path}"/>\n{_text(label, x, y, "of-arrow")}' for path, label, x, y in ARROWS]
    parts = "\n".join([*(box.svg() for box in BOXES), *arrows])
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size}>
<style>{STYLE}</style>
<marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="8" markerHeight="8" orient="auto">
<polygon points="0,0 10,5 0,10" fill="{LINE}"/>
</marker>
<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8" fill="white" style="stroke: #d0d7de"/>
{parts}
</svg>
"""


def _text(text: str, x: float, y: float, kind: str = "") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="middle"{name}>{escape(text)}</text>'


def quality_cost() -> str:
    """Return the plot of quality against milliseconds per query as an SVG document."""
    figures = read_results(RESULTS)[COLLECTION].figures
    rows = [_row(name, figures[name]) for name in METHODS]
    svg = plots_of({"table": "systems", "rows": rows})["quality-cost"]
    # A white outline keeps labels readable where a line passes behind them.
    halo = "<style>text { paint-order: stroke; stroke: white; stroke-width: 4px; }</style>"
    told = "; ".join(f"{name} {figures[name][NDCG]} in {figures[name]['ms']} ms" for name in METHODS)
    begin = f"<title>{COLLECTION}, {NDCG}: {told}</title>\n {halo}"
    return re.sub(r"(<svg[^>]*>)", rf"\1\n {begin}", svg, count=1)


def _row(method: str, figures: dict[str, str]) -> dict[str, Any]:
    return {"method": method, NDCG: {"all": float(figures[NDCG])}, "milliseconds": float(figures["ms"])}


def main() -> None:
    """Draw the pictures."""
    PICTURES.mkdir(exist_ok=True)
    for name, svg in (("data_flow", data_flow()), ("quality_cost", quality_cost())):
        Path(PICTURES / f"{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
