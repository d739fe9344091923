"""The web server around the application: uvicorn for plain http; for TLS hypercorn, which speaks HTTP/2.

hypercorn could do both, but it sends 39,000 chunks a second where uvicorn sends 65,000 (32 streams, 2 cores).
"""

import asyncio
import contextlib
import logging
import resource
import signal
from asyncio import constants
from typing import TYPE_CHECKING

from fastapi import FastAPI

from server.settings import Settings

if TYPE_CHECKING:
    import uvicorn

FILES = 65_536  # open files to ask the system for: each connection is one
STARTUP_FAILED = 3  # exit status, the same as uvicorn's own command
MAX_HTTP2_STREAMS = 1000  # requests on one connection at a time; others wait
GOODBYE_SECONDS = 2.0  # for a client to end TLS; asyncio's default of 30 s would delay a shutdown


def listen(app: FastAPI, settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests may end, for `shutdown_seconds`."""
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, FILES)), hard))
    if settings.tls_certificate is None:
        server = plain(app, settings)
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
        if not server.started:
            raise SystemExit(STARTUP_FAILED)
    else:
        asyncio.run(_until_told(app, settings))


def plain(app: FastAPI, settings: Settings) -> "uvicorn.Server":
    """uvicorn with our protocol, not yet running."""
    import uvicorn

    from server.http.protocol import HttpProtocol

    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=HttpProtocol,
        ws="none",
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        access_log=False,
        log_level="warning",
        server_header=False,
    )
    return uvicorn.Server(config)


async def _until_told(app: FastAPI, settings: Settings) -> None:
    stopping = asyncio.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, stopping.set)
    await encrypted(app, settings, stopping)


async def encrypted(app: FastAPI, settings: Settings, stopping: asyncio.Event) -> None:
    """Serve https, HTTP/2 for clients that offer it, until `stopping` is set."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    constants.SSL_SHUTDOWN_TIMEOUT = GOODBYE_SECONDS
    config = Config()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    config.bind = [f"{host}:{settings.port}"]
    config.certfile, config.keyfile = str(settings.tls_certificate), str(settings.tls_key)
    config.alpn_protocols = ["h2", "http/1.1"]
    config.h2_max_concurrent_streams = MAX_HTTP2_STREAMS
    config.keep_alive_timeout = settings.keep_alive_seconds
    config.graceful_timeout = settings.shutdown_seconds
    config.startup_timeout = config.shutdown_timeout = settings.shutdown_seconds
    config.include_server_header = False

    async def stopped() -> None:
        await stopping.wait()

    await serve(app, config, shutdown_trigger=stopped)  # pyright: ignore[reportArgumentType] (an ASGI application)


def _is_news(record: logging.LogRecord) -> bool:
    """False for two lines that uvicorn logs at each request that offers h2c, as every Java client's does."""
    return not record.getMessage().startswith(("Unsupported upgrade request", "No supported WebSocket library"))
