"""Reads requests from bodies: JSON, then a schema whose lists are counted before their entries are read."""

from __future__ import annotations

import asyncio
import json
from typing import Any, TypeVar

import numpy as np
from fastapi import Request as HttpRequest

from .body import SMALL_BYTES
from .limits import Limits
from .problems import FieldError, NotJson
from .schemas import Bounds, Request

# After a large body that was refused, the next one waits for so many times as long as it took to
# read, so that others have the rest of the time.
PAUSE = 9
Asked = TypeVar("Asked", bound=Request)


class Reader:
    """Reads requests within limits.

    Args:
        limits: Limits of the service; `queries`, `documents` and `text_length` are used.
        dim: Dimension of the query embeddings.
    """

    def __init__(self, limits: Limits, dim: int):
        self._bounds = Bounds(limits.queries, limits.documents, limits.text_length, dim)
        # Values of the largest legal request; its fields other than lists are far fewer than 100.
        self._most_values = limits.queries * (dim + 1) + limits.documents + 100
        self._turn = asyncio.Lock()

    async def read(self, request: HttpRequest, schema: type[Asked]) -> Asked:
        """Return what a request asks for.

        Args:
            request: A request whose body has arrived.
            schema: The schema of the body.

        Raises:
            NotJson: If the body isn't valid JSON.
            FieldError: If the body isn't sent as JSON.
            pydantic.ValidationError: If a field is missing, unknown or invalid.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise FieldError("body", "must be a JSON object, sent as application/json")
        body = await request.body()
        if len(body) <= SMALL_BYTES:
            return self._parse(body, schema)
        await self._turn.acquire()
        loop = asyncio.get_running_loop()
        begun, pause = loop.time(), PAUSE
        try:
            asked = await asyncio.to_thread(self._parse_large, body, schema)
            pause = 0
            return asked
        finally:
            loop.call_later(pause * (loop.time() - begun), self._turn.release)

    def _parse_large(self, body: bytes, schema: type[Asked]) -> Asked:
        values = count_values(body)
        if values > self._most_values:
            raise FieldError("body", f"must have at most {self._most_values} values, got {values}")
        return self._parse(body, schema)

    def _parse(self, body: bytes, schema: type[Asked]) -> Asked:
        return schema.model_validate(_load(body), context=self._bounds)


def count_values(body: bytes) -> int:
    """Count the values of a JSON list or object, those within its values included.

    Python reads JSON without a pause for other threads. Counting leaves them nearly all of the time.

    Args:
        body: JSON, or what begins like it. Values after an error are counted, too.

    Example:
        >>> count_values(b'{"queries": ["a, b", "c"], "top_k": 3}')
        3
    """
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    letters = np.frombuffer(plain, dtype=np.uint8)
    in_text = np.logical_xor.accumulate(letters == ord('"'))
    return 1 + int(np.count_nonzero((letters == ord(",")) & ~in_text))


def _load(body: bytes) -> Any:
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise NotJson(f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise NotJson("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise NotJson(f"its text is not {error.encoding} at byte {error.start}") from None
    except ValueError:
        # The only other one that Python's reader raises.
        raise NotJson("a number has too many digits") from None
