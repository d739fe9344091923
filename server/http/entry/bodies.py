"""Reads every request's body: decompressed, within its limits, and as valid text, before anything else uses it.

What is not a form is JSON, whatever its Content-Type says, since OpenAI's users write `curl -d`. JSON can hold half a
surrogate pair ("\\ud83d"), left by a client that cut an emoji in two. UTF-8 cannot, so no tokenizer, hash, database or
answer takes it, and PostgreSQL takes no NUL. Both become U+FFFD here, so that no other code meets them.

A large body is cleaned and its values counted on a thread. Its JSON is parsed on the event loop, since the parser holds
the interpreter's lock in any thread; so bytes and values are limited, and Python itself limits the depth.
"""

import asyncio
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase

from anyio import CapacityLimiter, to_thread
from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import InvalidRequest, RateLimited
from server.http.forms import MULTIPART_BYTES
from training.wire import more_values

# Charsets that clients name; Python's other codecs are slow on hostile input (punycode: quadratic), or not for text.
CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s;\"']+)", re.IGNORECASE)
CHARSETS = re.compile(r"utf-?(8|16|32)([_-]?[lb]e)?|us-ascii|ascii|iso-?8859-1|latin-?1|windows-125[0-8]|cp125[0-8]")
ENCODINGS = ("gzip", "x-gzip", "deflate")
GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
RAW_DEFLATE = -zlib.MAX_WBITS
# An escaped backslash, a whole pair, or what is replaced: half a pair, or NUL
ESCAPES = re.compile(
    r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u(?:[dD][89a-fA-F][0-9a-fA-F]{2}|0000)"
)
HALVES = re.compile("[\ud800-\udfff]")
HALF = len("\\ud83d")
SMALL_BYTES = PIECE_BYTES = 64 * 1024
READ_AT_A_TIME = 4
KEYLESS_BYTES = 4096  # where no key is asked for, nothing reads a body
PAUSE_SECONDS = 60.0  # between two pieces of a body


class Bodies:
    """Hands bodies on as UTF-8 JSON, or forms as they are, and refuses what is over the limit.

    Args:
        max_body_bytes: limit of a body that is no form, after decompression.
        max_items: values in a body's lists and objects.
        max_buffered_bytes: of all bodies that are in memory, but for small ones; half of them one key's.
        uploads: path that takes a form (`*` stands for any text) -> largest file. On other paths a body is JSON, also
            with a form's Content-Type.
    """

    def __init__(
        self, app: ASGIApp, max_body_bytes: int, max_items: int, max_buffered_bytes: int, uploads: dict[str, int]
    ) -> None:
        self._app = app
        self._room = _Room(max_buffered_bytes)
        self._max_body_bytes = max_body_bytes
        self._max_items = max_items
        self._readers = CapacityLimiter(READ_AT_A_TIME)
        self._uploads = {path: size + MULTIPART_BYTES for path, size in uploads.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        content_type = headers.get("content-type", "")
        caller = scope["state"].get("caller")
        form = self._form(scope["path"]) if content_type.lower().startswith("multipart/") else None
        limit = (form or self._max_body_bytes) if caller else KEYLESS_BYTES
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        read = _Reader(receive, headers.get("content-encoding", ""), limit)
        if form is not None:
            _charset(content_type)
            await self._app(_described(scope), read, send)
        elif "content-length" not in headers and "transfer-encoding" not in headers and scope["method"] == "GET":
            await self._app(scope, receive, send)
        else:
            with self._room.of(caller.id if caller else "") as take:
                body = await _whole(read, take)
                if body is not None:
                    if len(body) <= SMALL_BYTES:
                        body = self._read(body, content_type)
                    else:
                        body = await to_thread.run_sync(self._read, body, content_type, limiter=self._readers)
                    await self._app(_described(scope, body), _replayed(body, receive), send)

    def _read(self, body: bytes, content_type: str) -> bytes:
        body = clean(body, content_type) if body else body
        if more_values(body, self._max_items):
            raise HTTPException(413, f"The request's body holds more than {self._max_items} values (max_body_items).")
        return body

    def _form(self, path: str) -> int | None:
        """Largest form that the path takes, in bytes; None: it takes no form."""
        return next((size for pattern, size in self._uploads.items() if fnmatchcase(path, pattern)), None)


def clean(body: bytes, content_type: str = "") -> bytes:
    """JSON as UTF-8, with halves of surrogate pairs and NUL replaced.

    Args:
        content_type: the header; without a charset in it, the first bytes tell UTF-8, UTF-16 and UTF-32 apart.

    Raises:
        InvalidRequest: the body is no text in that encoding.
    """
    named = _charset(content_type)
    encoding = json.detect_encoding(body) if named == "utf-8" else named
    try:
        text = body.decode(encoding, "surrogatepass" if encoding.startswith("utf") else "strict")
    except UnicodeError as error:
        place = f" (at byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
        raise InvalidRequest(
            f"The body is not valid {encoding}{place}. Send UTF-8, or name the body's charset in the "
            "header Content-Type."
        ) from error
    if "\\u" in text:
        text = ESCAPES.sub(_mended, text)
    try:
        return text.removeprefix("\ufeff").encode()
    except UnicodeEncodeError:
        return HALVES.sub("\ufffd", text).removeprefix("\ufeff").encode()


def _charset(content_type: str) -> str:
    """The charset that a Content-Type names.

    Raises:
        InvalidRequest: it is none of text.
    """
    found = CHARSET.search(content_type)
    named = found[1].lower().replace("_", "-") if found else "utf-8"  # some write 'UTF_8'
    if not CHARSETS.fullmatch(named):
        raise InvalidRequest(f"The charset {named[:100]!r} of the header Content-Type is unknown; send UTF-8.")
    return named


def _mended(escape: re.Match[str]) -> str:
    return "\\ufffd" if len(escape.group()) == HALF else escape.group()


class _Reader:
    """Receives a body's pieces, decompressed; an ASGI `receive`.

    Errors are HTTPExceptions, since Starlette's form parser passes no others on.
    """

    def __init__(self, receive: Receive, encoding: str, limit: int) -> None:
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", *ENCODINGS):
            raise HTTPException(
                415, f"The Content-Encoding {encoding!r} is not understood; send gzip, deflate, or the body as it is."
            )
        self._receive = receive
        self._limit = limit
        self._received = 0
        self._inflater = _Inflater() if encoding in ENCODINGS else None
        self._packed = b""
        self._full = self._last = False

    async def __call__(self) -> Message:
        """The next piece. Compressed data are unpacked in small pieces, with other requests' turn in between."""
        if self._packed or self._full:
            message: Message = {"type": "http.request"}
            await asyncio.sleep(0)
        else:
            message = await self._next()
            if message["type"] != "http.request":
                return message
            self._packed, self._last = message.get("body", b""), not message.get("more_body", False)
        body, self._packed = self._packed, b""
        if self._inflater is not None:
            body, self._packed = self._inflater.inflate(body)
            self._full = len(body) == PIECE_BYTES
        self._received += len(body)
        if self._received > self._limit:
            raise _too_large(self._limit)
        more = bool(self._packed) or self._full or not self._last
        if self._inflater is not None and not more:
            self._inflater.end()
        return {**message, "body": body, "more_body": more}

    async def _next(self) -> Message:
        if self._last:  # the next message is the client's disconnect, which may come much later
            return await self._receive()
        try:
            async with asyncio.timeout(PAUSE_SECONDS):
                return await self._receive()
        except TimeoutError as error:
            raise HTTPException(408, f"Nothing of the body came for {PAUSE_SECONDS:.0f} seconds.") from error


class _Inflater:
    """Unpacks gzip, zlib, and the raw deflate data that some clients send as `deflate`."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(GZIP_OR_ZLIB)
        self._begun = False

    def inflate(self, data: bytes) -> tuple[bytes, bytes]:
        """Unpack `data` to PIECE_BYTES at most; return these bytes and the rest of `data`."""
        unpacked = b""
        try:
            while True:
                unpacked += self._some(data, PIECE_BYTES - len(unpacked))
                data = self._stream.unconsumed_tail or self._stream.unused_data
                if not data or len(unpacked) == PIECE_BYTES:
                    return unpacked, data
                if self._stream.eof:  # gzip may have several members
                    self._stream = zlib.decompressobj(GZIP_OR_ZLIB)
        except zlib.error as error:
            raise HTTPException(400, "The body is not what its Content-Encoding says.") from error

    def end(self) -> None:
        """Refuse a body that ends too soon."""
        if self._begun and not self._stream.eof:
            raise HTTPException(400, "The body ends before its compressed data do.")

    def _some(self, data: bytes, room: int) -> bytes:
        try:
            unpacked = self._stream.decompress(data, room)
        except zlib.error:
            if self._begun:
                raise
            self._stream = zlib.decompressobj(RAW_DEFLATE)
            unpacked = self._stream.decompress(data, room)
        self._begun = True
        return unpacked


class _Room:
    """Memory for bodies, counted by key."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._taken: Counter[str] = Counter()

    @contextmanager
    def of(self, key: str) -> Iterator[Callable[[int], None]]:
        """What takes more bytes for one body of a key; given back at the end.

        Raises:
            RateLimited: there is no room for them.
        """
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            if self._taken[key] + size > self._total // 2 or self._taken.total() + size > self._total:
                raise RateLimited(
                    "The server holds as many bytes of requests as it may (max_buffered_bytes). Please try again soon.",
                    "requests",
                    2,
                )
            self._taken[key] += size
            mine += size

        try:
            yield take
        finally:
            self._taken[key] -= mine
            if not self._taken[key]:
                del self._taken[key]


async def _whole(read: Receive, take: Callable[[int], None]) -> bytes | None:
    """The whole body; None: the client is gone.

    Args:
        take: takes room for what is not small.
    """
    pieces: list[bytes] = []
    size = taken = 0
    while True:
        message = await read()
        if message["type"] != "http.request":
            return None
        pieces.append(message["body"])
        size += len(message["body"])
        if size > SMALL_BYTES:
            take(size - taken)
            taken = size
        if not message.get("more_body", False):
            return b"".join(pieces)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns the body first, then the client's further messages (its disconnect)."""
    waiting = [body]

    async def again() -> Message:
        return {"type": "http.request", "body": waiting.pop(), "more_body": False} if waiting else await receive()

    return again


def _described(scope: Scope, body: bytes | None = None) -> Scope:
    """The scope with headers for the body as it is passed on; None: a form, read as it comes."""
    scope = {**scope, "headers": list(scope["headers"])}
    headers = MutableHeaders(scope=scope)
    if "content-encoding" in headers:
        del headers["content-encoding"]
        del headers["content-length"]
    if body is not None:
        headers["content-type"] = "application/json"
        headers["content-length"] = str(len(body))
    return scope


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"The request's body is larger than {limit} bytes (max_body_bytes, max_file_bytes).")
