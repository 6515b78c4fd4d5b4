"""Time to import `rrra_hf` and `sentence_transformers`, each in fresh processes, in turns.

Run: python benchmarks/import_time.py --out results/import_time.json
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import report

MODULES = ("sentence_transformers", "rrra_hf")


def seconds(module: str) -> float:
    """Return the seconds that a process takes to start and import a module."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    for module in MODULES:
        seconds(module)  # fills the file cache
    times = [{module: seconds(module) for module in MODULES} for _ in range(arguments.repeats)]
    ratios = {module: [turn[module] / turn[MODULES[0]] for turn in times] for module in MODULES}
    rows = [
        {
            "module": module,
            "seconds": statistics.median(turn[module] for turn in times),
            "ratio": statistics.median(ratios[module]),
            "highest": max(ratios[module]),
        }
        for module in MODULES
    ]
    report("Importing in a fresh process", rows, arguments.out)


if __name__ == "__main__":
    main()
