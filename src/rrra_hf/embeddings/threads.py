"""Threads that compute side by side, each with its share of the cores."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

# More workers than that wait for Python's lock rather than for the arithmetic.
MAX_WORKERS = 8


@contextmanager
def compute_threads() -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads that share the cores that torch may use.

    Several independent computations with a core each are faster than one after the other on all cores,
    which wait for each other at every operation (MiniLM on two cores: by 5 to 15 %). Work that has not
    begun when the block ends, in whatever way, is cancelled.

    Example:
        >>> with compute_threads() as pool:
        ...     list(pool.map(abs, [-1, 2]))
        [1, 2]
    """
    cores = torch.get_num_threads()
    workers = min(cores, MAX_WORKERS)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(cores // workers,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        # The last value that any thread set is the one that new threads begin with.
        torch.set_num_threads(cores)
