"""Maps domain errors to HTTP statuses and OpenAI's error objects; errors in reading a body (entry/) bring their own.

`{"error": {"message", "type", "param", "code"}}`: all four are always there. A permanent error never gets 409 or 5xx,
since the SDK retries those.
"""

import errno
import json
import logging
import math
import sqlite3
from dataclasses import dataclass, replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.routing import Route

from adapters.chat.template import TemplateError
from adapters.errors import (
    AdapterDamaged,
    AdapterInUse,
    AdapterNotFound,
    InvalidAdapter,
    InvalidAlias,
    InvalidName,
    NameTaken,
    TooManyAdapters,
    shown,
)
from server.errors import (
    AdapterLoadFailed,
    ContextLengthExceeded,
    DataFolderBusy,
    EngineUnavailable,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    ReaderTooSlow,
    TooLarge,
    Unauthorized,
    Unsupported,
)
from server.http import wording
from training.graders.sandbox import BrokenSource, SandboxUnavailable

logger = logging.getLogger(__name__)

INVALID = "invalid_request_error"
LONGEST_MESSAGE = 2000
LONGEST_PARAM = 200
REWORDED = {  # messages of FastAPI and Starlette
    "There was an error parsing the body": (
        "The body could not be read: expected JSON, or for an upload a whole form (multipart/form-data)."
    ),
    "Missing boundary in multipart.": "The header Content-Type of a form needs its boundary; let your client write it.",
    "Part exceeded maximum size": "A field of the form is larger than 1 MB; if it is the file, give it a file name.",
}


@dataclass(frozen=True)
class ErrorAnswer:
    """How an error is answered: HTTP status, OpenAI's type and code, and the field at fault if always the same."""

    status: int
    type: str = INVALID
    code: str | None = None
    param: str | None = None


TABLE: dict[type[Exception], ErrorAnswer] = {
    Unauthorized: ErrorAnswer(401, code="invalid_api_key"),
    Forbidden: ErrorAnswer(403, code="insufficient_permissions"),
    AdapterNotFound: ErrorAnswer(404, code="model_not_found", param="model"),
    RateLimited: ErrorAnswer(429, code="rate_limit_exceeded"),
    InvalidName: ErrorAnswer(400, code="invalid_name", param="name"),
    InvalidAdapter: ErrorAnswer(400, code="invalid_adapter"),
    NameTaken: ErrorAnswer(400, code="name_taken", param="name"),
    InvalidAlias: ErrorAnswer(400, code="invalid_alias", param="weights"),
    AdapterInUse: ErrorAnswer(400, code="adapter_in_use", param="name"),
    TooManyAdapters: ErrorAnswer(400, code="too_many_adapters"),
    AdapterDamaged: ErrorAnswer(500, "server_error", "adapter_damaged"),
    TemplateError: ErrorAnswer(400, code="invalid_messages", param="messages"),
    ContextLengthExceeded: ErrorAnswer(400, code="context_length_exceeded"),
    Unsupported: ErrorAnswer(400, code="unsupported_parameter"),
    InvalidRequest: ErrorAnswer(400),
    ReaderTooSlow: ErrorAnswer(400, code="reader_too_slow"),
    AdapterLoadFailed: ErrorAnswer(500, "server_error", "adapter_load_failed"),
    EngineUnavailable: ErrorAnswer(503, "server_error", "engine_unavailable"),
    DataFolderBusy: ErrorAnswer(503, "server_error", "data_folder_busy"),
    BrokenSource: ErrorAnswer(400, param="grader"),
    SandboxUnavailable: ErrorAnswer(400, param="grader"),
    NotFound: ErrorAnswer(404),
    TooLarge: ErrorAnswer(413, code="too_large"),
}

_UNEXPECTED = ErrorAnswer(500, "server_error")
_DISK_FULL = ErrorAnswer(507, "server_error", "insufficient_storage")


def status_and_body(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status and error object of a domain error; any other error is an internal one, whose text is not shown."""
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
    """An error as a stream's last event; without `event: error`, LangChain4j takes the stream for complete."""
    return f"event: error\ndata: {json.dumps(status_and_body(error)[1])}\n\n"


async def unexpected(request: Request, error: Exception) -> Response:
    """Log an uncaught error, and answer it."""
    logger.error("%s %r failed", request.method, request.url.path, exc_info=error)
    status, content = status_and_body(error)
    return JSONResponse(content, status)


def install(app: FastAPI) -> None:
    """Register these handlers. `unexpected` (entry/) answers other errors, and `Envelope` those outside of it."""

    async def domain(_request: Request, error: Exception) -> Response:
        status, content = status_and_body(error)
        retry = error.retry_seconds if isinstance(error, RateLimited) else 1 if status == 503 else None
        return JSONResponse(content, status, None if retry is None else {"retry-after": str(math.ceil(retry))})

    async def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = error.errors()
        if errors[0]["type"] == "json_invalid":
            message = f"The body is not valid JSON: {errors[0]['ctx']['error']} (at character {errors[0]['loc'][-1]})."
            return JSONResponse(_object(message, ErrorAnswer(400)), 400)
        message, code, param = wording.told(errors, error.body)
        return JSONResponse(_object(message, ErrorAnswer(400, code=code), param), 400)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code in (404, 405):
            return _no_route(request)
        message = REWORDED.get(str(error.detail).partition(" of ")[0], str(error.detail))
        return JSONResponse(_object(message, ErrorAnswer(error.status_code)), error.status_code, error.headers)

    for kind in TABLE:
        app.add_exception_handler(kind, domain)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _no_route(request: Request) -> Response:
    """404 or 405; OPTIONS gets the path's methods."""
    path, method = request.url.path, request.method
    known = _methods(request, path)
    if known:
        allow = {"allow": ", ".join([*known, *(["HEAD"] if "GET" in known else []), "OPTIONS"])}
        if method == "OPTIONS":
            return Response(status_code=204, headers=allow)
        message = f"Not allowed to {method} on {path}; expected {' or '.join(known)}."
        return JSONResponse(_object(message, ErrorAnswer(405, code="method_not_supported")), 405, allow)
    message = f"Invalid URL ({method} {path})"
    if path.startswith("/v1/v1"):
        message += ": /v1 stands there twice. The base URL ends in /v1, and the client adds the rest."
    elif _methods(request, f"/v1{path}"):
        message += f". Did you mean /v1{path}? The base URL ends in /v1."
    return JSONResponse(_object(message, ErrorAnswer(404)), 404)


def _methods(request: Request, path: str) -> list[str]:
    """The methods of a path's routes."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    return sorted({method for route in routes if route.path_regex.match(path) for method in route.methods or ()})


def _is_disk_full(error: Exception) -> bool:
    if isinstance(error, OperationalError):
        return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _message(error: Exception) -> str:
    if isinstance(error, AdapterNotFound):
        return f"The model `{error.args[0]}` does not exist or you do not have access to it."
    return str(error)


def _object(message: str, answer: ErrorAnswer, param: str | None = None) -> dict[str, Any]:
    at = param or answer.param
    return {
        "error": {
            "message": shown(wording.mended(message), LONGEST_MESSAGE),
            "type": answer.type,
            "param": at and shown(wording.mended(at), LONGEST_PARAM),
            "code": answer.code,
        }
    }
