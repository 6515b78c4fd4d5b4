"""Batching of concurrent requests in a bounded pool of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import anyio


class Busy(Exception):
    """Too many requests are waiting."""


@dataclass(eq=False)
class Job:
    """Items to process, and the future of their results."""

    work: Callable[[list[Any]], Sequence[Any]]
    items: list[Any]
    key: Hashable
    done: asyncio.Future[list[Any]]


class Batcher:
    """Runs jobs in threads and batches waiting jobs with the same key.

    A job starts as soon as a thread is free, the oldest job first. Waiting jobs with the same key join its
    batch, so batches grow with the load and no job waits for a batch to fill up.

    Use it from one event loop only.

    Args:
        name: Name prefix of the threads.
        threads: Number of threads.
        batch: Maximum number of items per batch. A larger job runs by itself.
        waiting: Maximum number of waiting jobs.
        observe: Called with the number of items of each batch.

    Example:
        >>> async def main():
        ...     batcher = Batcher("example", threads=1, batch=8, waiting=10)
        ...     double = lambda items: [2 * item for item in items]
        ...     return await asyncio.gather(*(batcher.run(double, [n], 1.0, key="double") for n in range(3)))
        >>> asyncio.run(main())
        [[0], [2], [4]]
    """

    def __init__(
        self,
        name: str,
        threads: int,
        batch: int,
        waiting: int,
        observe: Callable[[int], None] = lambda size: None,
    ):
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = threads
        self._batch = batch
        self._most = waiting
        self._observe = observe
        self._waiting: list[Job] = []

    async def run(
        self,
        work: Callable[[list[Any]], Sequence[Any]],
        items: Sequence[Any],
        seconds: float,
        key: Hashable = None,
    ) -> list[Any]:
        """Process items in a thread and return their results.

        Args:
            work: Function that takes a list of items and returns one result per item.
            items: At least one item.
            seconds: Timeout for waiting and processing.
            key: Jobs with equal keys may be batched in one call of `work`. None disables batching.

        Raises:
            Busy: If too many jobs are waiting.
            TimeoutError: If the time is up. A job that hasn't started by then never starts.
        """
        if len(self._waiting) >= self._most:
            raise Busy(f"{len(self._waiting)} requests are waiting already; try again later.")
        job = Job(work, list(items), key, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._begin()
        try:
            with anyio.fail_after(seconds):
                return await job.done
        finally:
            if job in self._waiting:
                self._waiting.remove(job)

    def close(self) -> None:
        """Wait for running jobs and stop the threads."""
        self._pool.shutdown()

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        while self._free and self._waiting:
            jobs = self._take()
            items = [item for job in jobs for item in job.items]
            self._observe(len(items))
            self._free -= 1
            future = self._pool.submit(jobs[0].work, items)
            future.add_done_callback(
                lambda future, jobs=jobs: loop.call_soon_threadsafe(self._finish, jobs, future)  # type: ignore[misc]
            )

    def _take(self) -> list[Job]:
        """Remove the oldest waiting job, and those that can join its batch, and return them."""
        first = self._waiting.pop(0)
        jobs, size = [first], len(first.items)
        for job in list(self._waiting):
            if first.key is not None and job.key == first.key and size + len(job.items) <= self._batch:
                self._waiting.remove(job)
                jobs.append(job)
                size += len(job.items)
        return jobs

    def _finish(self, jobs: list[Job], future: Future[Sequence[Any]]) -> None:
        self._free += 1
        error = future.exception()
        start = 0
        for job in jobs:
            end = start + len(job.items)
            if not job.done.done():
                if error is not None:
                    job.done.set_exception(error)
                else:
                    job.done.set_result(list(future.result()[start:end]))
            start = end
        self._begin()
