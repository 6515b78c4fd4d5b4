"""A Space that searches with and without the adapter of a retriever on the Hub."""

import os

from rrra_hf import Retriever
from rrra_hf.app import THEME, create_demo

name = os.environ.get("RRRA_RETRIEVER")
if not name:
    raise SystemExit("Set the variable RRRA_RETRIEVER to the Hub repository of a retriever with an index.")
# To show example questions below the search box: create_demo(..., examples=["a question", "another"]).
demo = create_demo(Retriever.from_pretrained(name), title=name)

if __name__ == "__main__":
    demo.launch(theme=THEME)
