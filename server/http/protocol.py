"""HTTP/1.1 by uvicorn's httptools protocol, except for clients that offer an upgrade.

Every JDK client offers `Upgrade: h2c` on plain http; httptools ends such a request after its head, and loses its body.
Such a connection is handed to uvicorn's h11 protocol, which ignores the offer. For all others httptools saves a sixth
of the front end's CPU time.
"""

import asyncio
import re
import resource

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

END_OF_HEAD = b"\r\n\r\n"
OFFER = b"\nupgrade:"
RAW = re.compile(rb"[\x80-\xff]")  # unencoded letters in a URL, as curl sends them; httptools refuses them
MAX_HEAD_BYTES = 64 * 1024  # as h11 has it; httptools has no limit
HEAD_SECONDS = 30.0  # for a request's head to arrive, from its first byte or the connection's start
SHARE = 0.5  # of the process's file descriptors for connections; files, pipes and the database need the rest


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol for a connection, until a request's head offers an upgrade."""

    _head = b""
    _within_request = False
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A client connected; from now on it has HEAD_SECONDS to send a request's head."""
        super().connection_made(transport)
        if len(self.connections) > SHARE * resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            transport.abort()
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process data; a request's head is held back until it is complete."""
        if self._within_request:
            super().data_received(data)
            return
        self._unset_keepalive_if_required()
        data = self._head + data
        head, end, _ = data.partition(END_OF_HEAD)
        if len(head) > MAX_HEAD_BYTES:
            self.send_400_response(f"The request's head is larger than {MAX_HEAD_BYTES} bytes.")
            return
        self._head = b"" if end else data
        if end:
            self._stop_waiting()
        elif self._waiting is None:
            self._wait_for_head()
        if end and not head.isascii():
            line, rest, more = data.partition(b"\r\n")
            data = RAW.sub(lambda byte: b"%%%02X" % byte[0][0], line) + rest + more
        idle = self.cycle is None or self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]
        if end and idle and OFFER in head.lower():
            self._hand_over(data)
        elif end:
            super().data_received(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._within_request = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Its body has ended."""
        self._within_request = False
        super().on_message_complete()

    def _wait_for_head(self) -> None:
        self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _hand_over(self, data: bytes) -> None:
        self.connections.discard(self)
        protocol = H11Protocol(self.config, self.server_state, self.app_state, self.loop)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.data_received(data)
