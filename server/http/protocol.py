"""HTTP/1.1 as uvicorn speaks it, one request at a time, each of which has to come.

httptools takes a sixth of the front end's CPU less than h11. But it ends a request that offers an upgrade, as every
client of the JDK offers h2c, at its head, and its body is lost; and it parses whatever follows a request, without a
limit. So it gets the head and the announced bytes of one request, and the next one when that is answered. A request
that offers an upgrade or comes in chunks goes to h11, with all that follows on its connection.
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
RAW = re.compile(rb"[\x80-\xff]")  # curl and scripts send a URL's letters as they were typed; httptools refuses them
MAX_HEAD_BYTES = 64 * 1024  # as with h11; httptools itself has no limit
MAX_AHEAD_BYTES = 1024 * 1024  # of requests that are sent before the one in front of them is answered
HEAD_SECONDS = 30.0  # for a request's head to come, from its first byte, or from the connection's beginning
SHARE = 0.5  # of the process's file descriptors that connections may have; files, pipes and the database need some too


class _Patient(asyncio.Protocol):
    """Closes its connection where a head does not come."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _waiting: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
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
    """A connection, until one of its requests is for h11."""

    _held = b""  # what came and was not parsed
    _rest = 0  # bytes of the request's body that are still to come

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A client has come; it has to say what it wants."""
        super().connection_made(transport)
        if len(self.connections) > SHARE * resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            transport.abort()
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._unset_keepalive_if_required()
        self._held += data
        self._parse()

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._rest:
            self.transport.abort()  # httptools understood the announced length otherwise
        super().on_message_begin()

    def on_response_complete(self) -> None:
        """A request is answered; the next one may have come already."""
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
        """Have a head parsed, if it is whole."""
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
    """A connection on which an upgrade was offered, or a body came in chunks."""

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._wait_for_head()
        else:
            self._stop_waiting()
