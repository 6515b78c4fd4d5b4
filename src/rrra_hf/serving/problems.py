"""Error responses in one format."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from .batching import Busy

# Seconds that a client should wait after status 503.
RETRY_AFTER = 1


class FieldError(ValueError):
    """A field of a request has an invalid value.

    Args:
        field: Name of the field, such as `queries.3`.
        message: The legal values and the given one.
    """

    def __init__(self, field: str, message: str):
        super().__init__(f"{field} {message}")
        self.field, self.message = field, message


def problem(
    status: int, message: str, field: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return an error response."""
    return JSONResponse({"detail": [{"message": message, "field": field}]}, status, headers)


def _entry(error: dict[str, Any]) -> dict[str, str]:
    """Convert an error of pydantic, without the value, which may be large."""
    field = ".".join(map(str, error["loc"][1:])) or "body"
    if error["type"] == "model_attributes_type":
        return {"message": "must be a JSON object, sent as application/json", "field": field}
    return {"message": error["msg"].removeprefix("Value error, "), "field": field}


def handle_problems(app: FastAPI, work_seconds: float) -> None:
    """Register handlers that turn exceptions into error responses."""

    @app.exception_handler(FieldError)
    async def field(request: Request, error: FieldError) -> JSONResponse:
        return problem(422, error.message, error.field)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        if found[0]["type"] == "json_invalid":
            return problem(
                400,
                f"The body isn't valid JSON: {found[0]['ctx']['error']} at character {found[0]['loc'][1]}.",
            )
        return JSONResponse({"detail": [_entry(entry) for entry in found]}, 422)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> JSONResponse:
        return problem(503, str(error), headers={"Retry-After": str(RETRY_AFTER)})

    @app.exception_handler(asyncio.TimeoutError)
    async def slow(request: Request, error: asyncio.TimeoutError) -> JSONResponse:
        return problem(504, f"The request was not finished within {work_seconds:g} seconds.")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return problem(500, "Internal server error; see the log of the server.")
