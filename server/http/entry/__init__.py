"""The middleware before the routes, as plain ASGI so that streams pass unchanged.

Outermost first: the envelope, refusal of other sites' pages, CORS, errors in OpenAI's form, a normal form of the URL,
the caller's key, its rate limits, and the body. So a request is refused before its body is read.
"""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware

from server.http.entry.bodies import Bodies
from server.http.entry.browsers import ANY, Browsers
from server.http.entry.urls import Urls
from server.http.envelope import Envelope
from server.http.identity import GUARDED, METRICS, Identity
from server.http.limits import Rates
from server.http.statuses import unexpected
from server.settings import Settings
from server.state.uploads import MAX_PART_BYTES

EXPOSED = (  # those of our headers that a page on another site may read
    *("x-request-id", "openai-processing-ms", "openai-version", "retry-after"),
    *(f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")),
)


def install(app: FastAPI, settings: Settings) -> None:
    """Add all middleware; the one added last is the outermost."""
    uploads = {
        "/v1/files": settings.max_file_bytes,
        "/v1/uploads/*/parts": MAX_PART_BYTES,
        "/admin/adapters": settings.max_adapter_bytes,
    }
    app.add_middleware(
        Bodies, max_body_bytes=settings.max_body_bytes, max_items=settings.max_body_items, uploads=uploads
    )
    app.add_middleware(Rates)
    guarded = GUARDED if settings.open_metrics else (*GUARDED, METRICS)
    keys = (lambda _app: None) if settings.no_auth else (lambda app: app.state.services.keys)
    app.add_middleware(Identity, guarded=guarded, keys=keys)
    app.add_middleware(Urls)
    app.add_middleware(ExceptionMiddleware, handlers={**app.exception_handlers, Exception: unexpected})
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            allow_credentials=ANY not in settings.cors_origins,  # pages of listed sites may send cookies, for a proxy
            allow_private_network=True,
            expose_headers=EXPOSED,
        )
    app.add_middleware(Browsers, guarded=settings.no_auth, origins=settings.cors_origins)
    app.add_middleware(Envelope)
