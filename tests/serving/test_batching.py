"""Batching of waiting jobs."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from forked import WAIT
from rrra_hf.retrieval import Retriever
from rrra_hf.serving import Limits, service
from rrra_hf.serving.batching import Batcher, Busy
from rrra_hf.serving.schemas import RankRequest, SearchRequest


def test_jobs_that_wait_are_done_together_if_they_may() -> None:
    calls: list[list[int]] = []
    release = threading.Event()

    def work(items: list[int]) -> list[int]:
        release.wait(WAIT)
        calls.append(items)
        return [10 * item for item in items]

    async def main() -> list[Any]:
        batcher = Batcher("test", threads=1, batch=3, waiting=10)
        jobs = [("a", [0]), ("a", [1]), ("b", [2]), ("a", [3, 4]), ("a", [5]), (None, [6]), (None, [7])]
        tasks = [asyncio.create_task(batcher.run(work, items, WAIT, key)) for key, items in jobs]
        await asyncio.sleep(0)
        release.set()
        results = await asyncio.gather(*tasks)
        batcher.close()
        return results

    assert asyncio.run(main()) == [[0], [10], [20], [30, 40], [50], [60], [70]]
    assert calls == [[0], [1, 3, 4], [2], [5], [6], [7]]


def test_jobs_fail_together_and_later_ones_do_not() -> None:
    def work(items: list[int]) -> list[int]:
        return [1 // item for item in items]

    async def main() -> list[Any]:
        batcher = Batcher("test", threads=1, batch=8, waiting=10)
        tasks = [asyncio.create_task(batcher.run(work, [item], WAIT, "key")) for item in (1, 0, 1)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        results.append(await batcher.run(work, [1], WAIT, "key"))
        batcher.close()
        return results

    first, second, third, last = asyncio.run(main())
    assert (first, last) == ([1], [1])
    assert isinstance(second, ZeroDivisionError)
    assert isinstance(third, ZeroDivisionError)


def test_job_that_waited_too_long_is_never_begun() -> None:
    done: list[int] = []
    release = threading.Event()

    def work(items: list[int]) -> list[int]:
        release.wait(WAIT)
        done.extend(items)
        return items

    async def main() -> None:
        batcher = Batcher("test", threads=1, batch=1, waiting=1)
        running = asyncio.create_task(batcher.run(work, [1], WAIT))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(batcher.run(work, [2], 0.05))
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="1 requests are waiting already"):
            await batcher.run(work, [3], WAIT)
        with pytest.raises(asyncio.TimeoutError):
            await waiting
        release.set()
        assert await running == [1]
        assert await batcher.run(work, [4], WAIT) == [4]
        batcher.close()

    asyncio.run(main())
    assert done == [1, 4]


def test_requests_with_many_texts_take_turns_with_others(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    encode, search = service.encode, Retriever.search

    def record_encode(encoder: Any, texts: list[str], **options: Any) -> np.ndarray:
        done.append(f"encode {len(texts)}")
        return encode(encoder, texts, **options)

    def record_search(self: Retriever, queries: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(queries, list):
            done.append(f"search {len(queries)}")
        return search(self, queries, *arguments, **options)

    monkeypatch.setattr(service, "encode", record_encode)
    monkeypatch.setattr(Retriever, "search", record_search)
    documents = [f"{word} files {number}" for number in range(20) for word in ("copy", "list")]
    many = [f"sort {number}" for number in range(20)]

    async def main() -> list[Any]:
        served = service.SearchService(retriever, Limits(batch=16), lambda size: None)
        requests = (
            served.rank(RankRequest(query="sort", documents=documents)),
            served.search(SearchRequest(queries=many)),
            served.search(SearchRequest(queries=["sort"], top_k=1)),
        )
        results = await asyncio.gather(*requests)
        served.close()
        return list(results)

    ranked, found, one = asyncio.run(main())
    # Each request has had its turn before the first has its second.
    assert done[:3] == ["encode 16", "search 16", "search 1"]
    assert sorted(done[3:]) == ["encode 16", "encode 8", "search 4"]
    assert [len(found), len(one[0])] == [20, 1]
    expected = retriever.rank("sort", documents)
    assert [hit["corpus_id"] for hit in ranked] == [hit["corpus_id"] for hit in expected]
    np.testing.assert_allclose(
        [hit["score"] for hit in ranked], [hit["score"] for hit in expected], rtol=1e-4, atol=1e-4
    )
