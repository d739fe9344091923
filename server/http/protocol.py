"""HTTP/1.1 with uvicorn's protocols, one request at a time on a connection, with limits on size and time.

httptools needs a sixth of the front end's CPU time less than h11. But it loses the body of a request that offers an
upgrade, as every JDK client does (h2c), and parses all that follows a request, without a limit. So it only gets the
head and the announced bytes of one request, and the next request when that one is answered. If a request offers an
upgrade or comes in chunks, its connection is handed to h11.
"""

import asyncio
import re
import resource

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

END_OF_HEAD = b"\r\n\r\n"
FOR_H11 = re.compile(rb"\n(upgrade|transfer-encoding)[ \t]*:", re.IGNORECASE)
LENGTH = re.compile(rb"\ncontent-length[ \t]*:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
RAW = re.compile(rb"[\x80-\xff]")  # unencoded letters in a URL, as curl sends them; httptools refuses them
MAX_HEAD_BYTES = 64 * 1024  # as h11 has it; httptools has no limit
MAX_AHEAD_BYTES = 1024 * 1024  # of requests that are sent before the previous one is answered
HEAD_SECONDS = 30.0  # for a request's head to arrive, from its first byte or the connection's start
SHARE = 0.5  # of the process's file descriptors for connections; files, pipes and the database need the rest


class _Patient(asyncio.Protocol):
    """Closes the connection if a request's head does not arrive in HEAD_SECONDS."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _waiting: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


class HttpProtocol(_Patient, HttpToolsProtocol):
    """A connection with httptools, until a request has to be handed to h11."""

    _held = b""  # received, but not parsed yet
    _rest = 0  # bytes of the request's body that are still to come

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A client connected; from now on it has HEAD_SECONDS to send a request's head."""
        super().connection_made(transport)
        if len(self.connections) > SHARE * resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            transport.abort()
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Process data as far as the current request allows."""
        self._unset_keepalive_if_required()
        self._held += data
        self._parse()

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._rest:
            self.transport.abort()  # httptools read another content length than we
        super().on_message_begin()

    def on_response_complete(self) -> None:
        """A request is answered; the next one may have arrived already."""
        super().on_response_complete()
        if self._rest:
            self._wait_for_head()
        if self._held:
            self._unset_keepalive_if_required()
            self._parse()

    def _parse(self) -> None:
        while self._held and not self.transport.is_closing():
            if self._rest:
                body, self._held = self._held[: self._rest], self._held[self._rest :]
                super().data_received(body)
                self._rest -= len(body)
                if not self._rest:
                    self._stop_waiting()
            elif self.cycle is None or self.cycle.response_complete:  # pyright: ignore[reportUnnecessaryComparison]
                if not self._parse_head():
                    return
            else:
                if len(self._held) > MAX_AHEAD_BYTES:
                    self.transport.abort()
                elif len(self._held) > MAX_HEAD_BYTES:
                    self.flow.pause_reading()
                return

    def _parse_head(self) -> bool:
        """Parse a head if it is complete; return whether parsing can go on."""
        before, end, after = self._held.partition(END_OF_HEAD)
        if len(before) > MAX_HEAD_BYTES:
            self.send_400_response(f"The request's head is larger than {MAX_HEAD_BYTES} bytes.")
            return False
        if not end:
            self._wait_for_head()
            return False
        self._stop_waiting()
        head = before + end
        if not head.isascii():
            line, rest, more = head.partition(b"\r\n")
            head = RAW.sub(lambda byte: b"%%%02X" % byte[0][0], line) + rest + more
        if FOR_H11.search(head):
            self._hand_over(head + after)
            return False
        self._held = after
        super().data_received(head)
        length = LENGTH.search(head)
        self._rest = int(length[1]) if length else 0
        return True

    def _hand_over(self, data: bytes) -> None:
        self.connections.discard(self)
        protocol = _H11(self.config, self.server_state, self.app_state, self.loop)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.data_received(data)


class _H11(_Patient, H11Protocol):
    """A connection with h11: a request offered an upgrade, or sent its body in chunks."""

    def data_received(self, data: bytes) -> None:
        """Process data, and wait for the next head if no request has begun."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._wait_for_head()
        else:
            self._stop_waiting()
