"""The comparison of `training.py` with larger encoders and batches, for one GPU.

Run: python benchmarks/gpu_training.py --data DATA --collections healthver --methods in-batch drop
"""

from __future__ import annotations

import copy
from pathlib import Path

from training import arguments_parser, run

# With the learning rate for in-batch negatives.
ENCODERS = {"bert-base-uncased": 3e-5, "answerdotai/ModernBERT-base": 8e-5}
OF_OTHERS = 5e-5


def main() -> None:
    """Run each encoder in a folder of its own."""
    parser = arguments_parser(
        steps=400, batch_size=64, kept=Path("results/gpu_training"), model=None, learning_rate=None
    )
    arguments = parser.parse_args()
    for encoder in [arguments.model] if arguments.model else ENCODERS:
        one = copy.copy(arguments)
        one.model = encoder
        one.learning_rate = arguments.learning_rate or ENCODERS.get(encoder, OF_OTHERS)
        one.kept = arguments.kept / Path(encoder).name
        one.cache = one.kept / "embeddings"
        run(one)


if __name__ == "__main__":
    main()
