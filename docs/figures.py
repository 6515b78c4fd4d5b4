"""Insert figures from the results into the texts that quote them: `python docs/figures.py`.

No figure is typed by hand. A link whose title names a figure gets that figure as its text:

    [0.530](results.md "nl2bash, encoder, nDCG@10")
    [0.704](zero-shot.md "all-MiniLM-L6-v2: ranking, mean, pretrained")

A comment that names rows (a collection and a measure each) and columns (methods) is followed by that table:

    <!-- figures of results.md
    rows: nl2bash nDCG@10; scifact unseen
    columns: encoder; features
    -->
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TEXTS = (ROOT / "README.md", ROOT / "docs/method.md")

LINK = re.compile(
    r"\[(?:[^\[\]]|\[[^\]]*\])*\]"
    r"(?P<address>\((?P<file>[\w/.-]+\.md) "
    r'"(?P<collection>[^,"]+), (?P<method>[^,"]+), (?P<measure>[^"]+)"\))'
)
TABLE = re.compile(
    r"(?P<comment><!-- figures of (?P<file>\S+)\nrows: (?P<rows>.+)\ncolumns: (?P<columns>.+)\n-->\n)"
    r"(?:\n(?:\|.*\n)+)?"
)


class Section(NamedTuple):
    """A table of results.

    Args:
        title: Its heading, which starts with the name of the collection.
        figures: Figures as printed, by method and measure.
    """

    title: str
    figures: dict[str, dict[str, str]]

    def count(self, measure: str) -> str:
        """Return the number of queries behind a measure as printed in the heading, or ""."""
        group = measure if measure in ("seen", "unseen") else "test queries"
        found = re.search(rf"(\d+) {group}\b", self.title)
        return found[1] if found else ""


def read_results(path: Path) -> dict[str, Section]:
    """Return the tables of a file from `rrra compare --markdown`, by collection.

    Those of `docs/zero-shot.md` are of one encoder and one measurement each, and are named by both, as in
    their headings: "wordllama: ranking". Their rows are collections.
    """
    sections: dict[str, Section] = {}
    for part in path.read_text(encoding="utf-8").split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        lines = [line for line in body.splitlines() if line.startswith("|")]
        rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
        if rows:
            header, _, *figures = rows
            by_row = {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in figures}
            name = title.partition(":")[0] if header[0] == "method" else title
            sections[name] = Section(title, by_row)
    return sections


def fill(text: str, folder: Path) -> str:
    """Return a text with the figures that it quotes.

    Args:
        text: The text, in Markdown.
        folder: The folder of the text. Its paths to files of results are relative to it.

    Raises:
        KeyError: If it names a collection, method or measure that isn't in the results.
    """
    text = LINK.sub(lambda found: _link(found, folder), text)
    return TABLE.sub(lambda found: _table(found, folder), text)


def _link(found: re.Match[str], folder: Path) -> str:
    section = read_results(folder / found["file"])[found["collection"]]
    return f"[{section.figures[found['method']][found['measure']]}]{found['address']}"


def _table(found: re.Match[str], folder: Path) -> str:
    results = read_results(folder / found["file"])
    columns = found["columns"].split("; ")
    lines = [["", *columns], ["---", *["---:"] * len(columns)]]
    for row in found["rows"].split("; "):
        collection, _, measure = row.partition(" ")
        section = results[collection]
        count = section.count(measure)
        name = f"{collection}, {measure}" + (f" ({count} queries)" if count else "")
        lines.append([name, *(section.figures[column][measure] for column in columns)])
    return found["comment"] + "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Update all texts."""
    for path in TEXTS:
        path.write_text(fill(path.read_text(encoding="utf-8"), path.parent), encoding="utf-8")


if __name__ == "__main__":
    main()
