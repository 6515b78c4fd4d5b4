"""Error responses in one format."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from .batching import Busy

# Seconds that a client should wait after status 503.
RETRY_AFTER = 1
# An answer to a bad request is short, however many errors it has and whatever they quote.
MAX_ERRORS = 3
MAX_LENGTH = 200


class NotJson(ValueError):
    """A body isn't valid JSON.

    Args:
        reason: What is wrong, and where.
    """


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
    return _answer([_entry(message, field)], status, headers)


def busy(message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error response that says when to try again."""
    return problem(503, message, headers={"Retry-After": str(RETRY_AFTER), **(headers or {})})


def _answer(
    entries: list[dict[str, str | None]], status: int, headers: dict[str, str] | None = None
) -> JSONResponse:
    first = entries[0]
    message = first["message"] if first["field"] is None else f"{first['field']}: {first['message']}"
    return JSONResponse({"message": message, "detail": entries}, status, headers)


def _entry(message: str, field: str | None) -> dict[str, str | None]:
    return {"message": _short(message), "field": None if field is None else _short(field)}


def _short(text: str) -> str:
    return text if len(text) <= MAX_LENGTH else text[:MAX_LENGTH] + " …"


def _validation_entry(error: Any) -> dict[str, str | None]:
    field = ".".join(map(str, error["loc"])) or "body"
    if error["type"] == "model_type":
        return _entry("must be a JSON object, sent as application/json", field)
    return _entry(error["msg"].removeprefix("Value error, "), field)


def handle_problems(app: FastAPI, work_seconds: float) -> None:
    """Register handlers that turn exceptions into error responses."""

    @app.exception_handler(FieldError)
    async def field(request: Request, error: FieldError) -> JSONResponse:
        return problem(422, error.message, error.field)

    @app.exception_handler(NotJson)
    async def not_json(request: Request, error: NotJson) -> JSONResponse:
        return problem(400, f"The body isn't valid JSON: {error}.")

    @app.exception_handler(ValidationError)
    async def invalid(request: Request, error: ValidationError) -> JSONResponse:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return _answer([_validation_entry(entry) for entry in found[:MAX_ERRORS]], 422)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(Busy)
    async def waiting(request: Request, error: Busy) -> JSONResponse:
        return busy(str(error))

    @app.exception_handler(TimeoutError)
    async def slow(request: Request, error: TimeoutError) -> JSONResponse:
        return problem(504, f"The request was not finished within {work_seconds:g} seconds.")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return problem(500, "Internal server error; see the log of the server.")
