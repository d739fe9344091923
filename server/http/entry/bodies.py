"""The one place where bodies enter: unpacked, within their limits, and valid text before anybody reads them.

What is not a form is JSON, whatever its Content-Type says, for OpenAI's users write `curl -d`. JSON can hold what no
UTF-8 can: half a surrogate pair ("\\ud83d"), cut out of an emoji by somebody's truncation. No tokenizer, hash, database
or answer takes it, and PostgreSQL takes no NUL. Both become U+FFFD, so that no one behind needs to think of them.

A large body is mended and counted off the event loop. Its JSON is parsed on the loop, for the parser holds the
interpreter's lock in any thread. So what it parses is bounded, by bytes, by items and, by Python itself, in depth.
"""

import asyncio
import json
import re
import zlib
from email.message import Message as Header
from fnmatch import fnmatchcase

from anyio import CapacityLimiter, to_thread
from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import InvalidRequest
from training.wire import more_values

MULTIPART_BYTES = 1024**2  # form fields and boundaries around an uploaded file
# What clients name; other codecs of Python's are slow on purpose-made input (punycode: quadratic), or no text at all.
CHARSETS = re.compile(r"utf-?(8|16|32)([_-]?[lb]e)?|us-ascii|ascii|iso-?8859-1|latin-?1|windows-125[0-8]|cp125[0-8]")
ENCODINGS = ("gzip", "x-gzip", "deflate")
GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
RAW_DEFLATE = -zlib.MAX_WBITS
# An escaped backslash, a whole pair, or what is mended: a half, or NUL
ESCAPES = re.compile(
    r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u(?:[dD][89a-fA-F][0-9a-fA-F]{2}|0000)"
)
HALVES = re.compile("[\ud800-\udfff]")
HALF = len("\\ud83d")
SMALL_BYTES = PIECE_BYTES = 64 * 1024
READ_AT_A_TIME = 4
PAUSE_SECONDS = 60.0  # between two pieces of a body


class Bodies:
    """Hands bodies on as UTF-8 JSON, or forms as they are, and refuses what is over the limit.

    Args:
        max_body_bytes: for what is no form; of what was unpacked.
        max_items: values in a body's lists and objects.
        uploads: path that takes a form, `*` for any part of it -> largest file. Elsewhere a body is JSON, also under a
            form's Content-Type.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_items: int, uploads: dict[str, int]) -> None:
        self._app = app
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
        form = self._form(scope["path"]) if content_type.lower().startswith("multipart/") else None
        limit = form or self._max_body_bytes
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        read = _Reader(receive, headers.get("content-encoding", ""), limit)
        if form is not None:
            await self._app(_described(scope), read, send)
        elif "content-length" not in headers and "transfer-encoding" not in headers and scope["method"] == "GET":
            await self._app(scope, receive, send)
        else:
            body = await _whole(read)
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
        """How large a form the path takes; None: it takes none."""
        return next((size for pattern, size in self._uploads.items() if fnmatchcase(path, pattern)), None)


def clean(body: bytes, content_type: str = "") -> bytes:
    """JSON as UTF-8 without halves of surrogate pairs and NUL.

    Args:
        content_type: the header, whose charset counts; without one it is UTF-8, UTF-16 or UTF-32, as it begins.

    Raises:
        InvalidRequest: it is no text in that encoding.
    """
    header = Header()
    header["content-type"] = content_type
    named = (header.get_content_charset() or "utf-8").strip("'\"").replace("_", "-")  # some write 'UTF_8'
    if not CHARSETS.fullmatch(named):
        raise InvalidRequest(f"The charset {named!r} of the header Content-Type is unknown; send UTF-8.")
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


def _mended(escape: re.Match[str]) -> str:
    return "\\ufffd" if len(escape.group()) == HALF else escape.group()


class _Reader:
    """Receives a body's pieces, unpacked; an ASGI `receive`.

    Errors are HTTPExceptions, for the reader of forms lets no others through.
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
        """The next piece; of what is packed, one that is unpacked in a moment, and then others' turn."""
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
        if self._last:  # what comes then, and may come late, is that the client is gone
            return await self._receive()
        try:
            async with asyncio.timeout(PAUSE_SECONDS):
                return await self._receive()
        except TimeoutError as error:
            raise HTTPException(408, f"Nothing of the body came for {PAUSE_SECONDS:.0f} seconds.") from error


class _Inflater:
    """Unpacks gzip, zlib, and the bare deflate that some clients send under that name."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(GZIP_OR_ZLIB)
        self._begun = False

    def inflate(self, data: bytes) -> tuple[bytes, bytes]:
        """What `data` unpacks to, PIECE_BYTES at most, and what of it is left."""
        unpacked = b""
        try:
            while True:
                unpacked += self._some(data, PIECE_BYTES - len(unpacked))
                data = self._stream.unconsumed_tail or self._stream.unused_data
                if not data or len(unpacked) == PIECE_BYTES:
                    return unpacked, data
                if self._stream.eof:  # gzip may come in several members
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


async def _whole(read: Receive) -> bytes | None:
    """The whole body; None: the client is gone."""
    pieces: list[bytes] = []
    while True:
        message = await read()
        if message["type"] != "http.request":
            return None
        pieces.append(message["body"])
        if not message.get("more_body", False):
            return b"".join(pieces)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once, then what comes: that the client is gone."""
    waiting = [body]

    async def again() -> Message:
        return {"type": "http.request", "body": waiting.pop(), "more_body": False} if waiting else await receive()

    return again


def _described(scope: Scope, body: bytes | None = None) -> Scope:
    """The scope with headers that describe the body as it is handed on; None: a form, read as it comes."""
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
