"""From domain errors to OpenAI's error objects: the only module that knows which error is which HTTP status.

`{"error": {"message", "type", "param", "code"}}`, all four always there. Nothing permanent is answered with 409 or 5xx:
the SDK would try it again.
"""

import errno
import json
import math
import sqlite3
from dataclasses import dataclass, replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from adapters.errors import (
    AdapterDamaged,
    AdapterInUse,
    AdapterNotFound,
    InvalidAdapter,
    InvalidAlias,
    InvalidName,
    NameTaken,
    TooManyAdapters,
)
from adapters.template import TemplateError
from server.generation import (
    AdapterLoadFailed,
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidRequest,
    Unsupported,
)
from server.state.errors import InvalidState, NotFound, TooLarge

INVALID = "invalid_request_error"


class Unauthorized(Exception):
    """No key, or one that does not exist."""


class Forbidden(Exception):
    """The key may not do this."""


class RateLimited(Exception):
    """The key has used up its minute.

    Attributes:
        kind: "requests" or "tokens"; the error object's type.
        retry_seconds: until there is room again.
    """

    def __init__(self, message: str, kind: str, retry_seconds: float) -> None:
        super().__init__(message, kind, retry_seconds)
        self.kind = kind
        self.retry_seconds = retry_seconds

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Answer:
    """How an error is answered: HTTP status, OpenAI's type and code, and the field at fault where it is always one."""

    status: int
    type: str = INVALID
    code: str | None = None
    param: str | None = None


TABLE: dict[type[Exception], Answer] = {
    Unauthorized: Answer(401, code="invalid_api_key"),
    Forbidden: Answer(403, code="insufficient_permissions"),
    AdapterNotFound: Answer(404, code="model_not_found", param="model"),
    RateLimited: Answer(429, code="rate_limit_exceeded"),
    InvalidName: Answer(400, code="invalid_name", param="name"),
    InvalidAdapter: Answer(400, code="invalid_adapter"),
    NameTaken: Answer(400, code="name_taken", param="name"),
    InvalidAlias: Answer(400, code="invalid_alias", param="weights"),
    AdapterInUse: Answer(400, code="adapter_in_use", param="name"),
    TooManyAdapters: Answer(400, code="too_many_adapters"),
    AdapterDamaged: Answer(500, "server_error", "adapter_damaged"),
    TemplateError: Answer(400, code="invalid_messages", param="messages"),
    ContextLengthExceeded: Answer(400, code="context_length_exceeded"),
    Unsupported: Answer(400, code="unsupported_parameter"),
    InvalidRequest: Answer(400),
    AdapterLoadFailed: Answer(500, "server_error", "adapter_load_failed"),
    EngineUnavailable: Answer(503, "server_error", "engine_unavailable"),
    NotFound: Answer(404),
    InvalidState: Answer(400),
    TooLarge: Answer(413, code="too_large"),
}

_UNEXPECTED = Answer(500, "server_error")
_DISK_FULL = Answer(507, "server_error", "insufficient_storage")


def describe(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status and error object of a domain error; anything else is an internal error whose text stays here."""
    if _is_disk_full(error):
        return _DISK_FULL.status, _object("The server's disk is full; nothing was stored. Try again later.", _DISK_FULL)
    known = next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), None)
    if known is None:
        return _UNEXPECTED.status, _object("The server had an error while processing your request.", _UNEXPECTED)
    if isinstance(error, RateLimited):
        known = replace(known, type=error.kind)  # as OpenAI does
    param = getattr(error, "param", None) or getattr(error, "key", None)
    return known.status, _object(_message(error), known, param)


def event(error: Exception) -> str:
    """An error as the last event of a stream; without `event: error` LangChain4j takes the stream for complete."""
    return f"event: error\ndata: {json.dumps(describe(error)[1])}\n\n"


def install(app: FastAPI) -> None:
    """Answer errors in this form; what is left, middleware.py answers, so that a 500 has its headers too."""

    async def domain(_request: Request, error: Exception) -> JSONResponse:
        status, content = describe(error)
        retry = error.retry_seconds if isinstance(error, RateLimited) else 1 if status == 503 else None
        return JSONResponse(content, status, None if retry is None else {"retry-after": str(math.ceil(retry))})

    async def invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first, field = _at_fault(error)
        param = ".".join(map(str, field)) or None
        if first["type"] == "json_invalid":
            return JSONResponse(_object(f"The body is not valid JSON: {first['ctx']['error']}", Answer(400)), 400)
        message = first["msg"].removeprefix("Value error, ")
        code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
        return JSONResponse(_object(f"{param}: {message}" if param else message, Answer(400, code=code), param), 400)

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        message = str(error.detail)
        if error.status_code in (404, 405):
            message = f"Invalid URL ({request.method} {request.url.path})"
        return JSONResponse(_object(message, Answer(error.status_code)), error.status_code, error.headers)

    for kind in TABLE:
        app.add_exception_handler(kind, domain)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _at_fault(error: RequestValidationError) -> tuple[dict[str, Any], list[str | int]]:
    """The first field's error and the path to it; of a union's branches, the one that came furthest."""

    def field(found: dict[str, Any]) -> list[str | int]:
        place, *path = found["loc"]
        if place != "body" or not isinstance(error.body, dict | list):
            return path
        known: list[str | int] = []
        at = error.body
        for part in path:  # a branch of a union has a part too, which the body knows nothing of
            if isinstance(at, dict) and (part in at or (found["type"] == "missing" and part is path[-1])):
                at = at.get(part)
                known.append(part)
            elif isinstance(at, list) and isinstance(part, int):
                at = at[part]
                known.append(part)
        return known

    errors = [(found, field(found)) for found in error.errors()]
    same = [(found, path) for found, path in errors if path[:1] == errors[0][1][:1]]
    return max(same, key=lambda pair: (len(pair[1]), pair[0]["type"] != "missing"))


def _is_disk_full(error: Exception) -> bool:
    if isinstance(error, OperationalError):
        return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _message(error: Exception) -> str:
    if isinstance(error, AdapterNotFound):
        return f"The model `{error.args[0]}` does not exist or you do not have access to it."
    return str(error)


def _object(message: str, answer: Answer, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": answer.type, "param": param or answer.param, "code": answer.code}}
