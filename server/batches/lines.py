"""A batch's input, all of which is checked before any of it is answered, and the records of its answers."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from server.state.batches import Counts
from server.state.ids import random_id
from training.data import jsonl
from training.data.jsonl import quoted
from training.wire import more_values

MAX_LINES = 50_000  # OpenAI's
MAX_ERRORS = 100
MAX_ID_CHARACTERS = 512  # of a custom_id; OpenAI names no limit

_BEGINNING = re.compile(rb'\{"id": "\w+", "custom_id": ("(?:[^"\\]|\\.)*+"), ')
# What readers of lines take for an end of one, though JSON may have it in a text: NEL, U+2028, U+2029
_SEPARATORS = ((b"\xc2\x85", rb"\u0085"), (b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"))


@dataclass(frozen=True)
class Limits:
    """What a line may have, as a request's body: bytes, and values in its lists and objects."""

    max_body_bytes: int
    max_body_items: int

    def fault(self, text: str) -> str | None:
        """What is too much of it, before it is parsed."""
        raw = text.encode(errors="surrogateescape")
        if len(raw) > self.max_body_bytes:
            return f"longer than {self.max_body_bytes} bytes (max_body_bytes); make it smaller, one request a line"
        if more_values(raw, self.max_body_items):
            return (
                f"holds more than {self.max_body_items} values (max_body_items); a line is one request, make it smaller"
            )
        return None


@dataclass(frozen=True)
class Line:
    """A request of a batch; its body as JSON."""

    custom_id: str
    body: bytes


@dataclass(frozen=True)
class Response:
    """How a request was answered; the body as JSON without line ends."""

    status: int
    request_id: str
    body: bytes


@dataclass(frozen=True)
class Failure:
    """Why a request was not answered."""

    code: str
    message: str


def read(path: Path) -> Iterator[Line]:
    """The requests of a checked file."""
    for _, text in jsonl.lines(path, max_characters=sys.maxsize - 1):
        content = json.loads(text)
        body = json.dumps(content["body"], ensure_ascii=False, separators=(",", ":"))
        yield Line(content["custom_id"], body.encode(errors="surrogatepass"))  # whoever reads bodies mends halves


def check(path: Path, endpoint: str, limits: Limits) -> tuple[int, list[dict[str, Any]]]:
    """How many requests a file has, and what is wrong with it, in the form of OpenAI's `errors.data`."""
    seen: set[str] = set()
    found: list[dict[str, Any]] = []

    def wrong(number: int | None, code: str, message: str, param: str | None = None) -> None:
        found.append({"code": code, "line": number, "message": message, "param": param})

    try:
        for number, text in jsonl.lines(path, max_characters=limits.max_body_bytes, max_values=limits.max_body_items):
            if len(seen) >= MAX_LINES:
                wrong(None, "too_many_tasks", f"more than {MAX_LINES} requests; split the file")
            if len(found) >= MAX_ERRORS:
                break
            if fault := limits.fault(text):
                wrong(number, "invalid_request", fault)
                continue
            try:
                line = jsonl.load(text, halves=True, max_characters=limits.max_body_bytes)
            except ValueError as error:
                wrong(number, "invalid_json_line", f"This line is not parseable as valid JSON: {error}")
                continue
            custom_id = line.get("custom_id") if isinstance(line, dict) else None
            if not isinstance(custom_id, str) or not custom_id:
                wrong(number, "missing_required_parameter", "expected a string that names the request", "custom_id")
            elif len(custom_id) > MAX_ID_CHARACTERS:
                wrong(number, "invalid_request", f"longer than {MAX_ID_CHARACTERS} characters", "custom_id")
            elif custom_id in seen:
                wrong(number, "duplicate_custom_id", f"{quoted(custom_id)} names another line too", "custom_id")
            elif line.get("method") != "POST":
                wrong(number, "invalid_method", f"method is {quoted(line.get('method'))}; expected 'POST'", "method")
            elif line.get("url") != endpoint:
                other = f"url is {quoted(line.get('url'))}; the batch is for {endpoint!r}"
                wrong(number, "mismatched_endpoint", other, "url")
            elif not isinstance(line.get("body"), dict):
                wrong(number, "missing_required_parameter", "expected the request's object", "body")
            elif line["body"].get("stream"):
                wrong(number, "invalid_request", "a batch cannot be streamed; leave 'stream' out", "body.stream")
            if isinstance(custom_id, str):
                seen.add(custom_id)
    except jsonl.NotJsonLines as error:
        wrong(None, "invalid_file", str(error), "input_file_id")
    if not seen and not found:
        wrong(None, "empty_file", "the file holds no requests")
    return len(seen), found


class Answers:
    """The answers so far, as OpenAI writes them: those that succeeded in one file, the others in another.

    An answer's JSON stands in its record as it came. It may be megabytes, which nobody parses again.
    """

    def __init__(self, folder: Path) -> None:
        """Go on after the last whole record of each file; what a crash tore is written again."""
        folder.mkdir(parents=True, exist_ok=True)
        self.good, self.bad = folder / "output.jsonl", folder / "error.jsonl"
        self._done = {path: _custom_ids(path) for path in (self.good, self.bad)}
        self._streams = {path: path.open("ab") for path in self._done}
        self._fault: OSError | None = None
        self._lock = Lock()

    def __contains__(self, custom_id: str) -> bool:
        """Whether the request is answered."""
        return any(custom_id in ids for ids in self._done.values())

    def counts(self, total: int) -> Counts:
        """How far a batch of so many requests is."""
        return Counts(total, len(self._done[self.good]), len(self._done[self.bad]))

    def add(self, custom_id: str, outcome: Response | Failure) -> None:
        """Write what became of a request, once; from any thread.

        Raises:
            OSError: it could not be written, or one before it; a record after a torn one would be lost in it.
        """
        record = _record(custom_id, outcome)
        path = self.good if isinstance(outcome, Response) and outcome.status == 200 else self.bad
        with self._lock:
            if self._fault is not None:
                raise self._fault
            if custom_id in self:
                return
            try:
                self._streams[path].write(record)
                self._streams[path].flush()
            except OSError as fault:
                self._fault = fault
                raise
            self._done[path].add(custom_id)

    def close(self) -> None:
        """Take no more; the files stay."""
        with self._lock:
            for stream in self._streams.values():
                stream.close()


def _custom_ids(path: Path) -> set[str]:
    """Those in a file, which is cut after its last whole record; of a record its beginning is parsed."""
    found: set[str] = set()
    path.touch()
    with path.open("rb+") as stream:
        whole = 0
        for raw in stream:
            begins = _BEGINNING.match(raw)
            if begins is None or not raw.endswith(b"\n"):
                break
            found.add(json.loads(begins.group(1)))
            whole += len(raw)
        stream.truncate(whole)
    return found


def _record(custom_id: str, outcome: Response | Failure) -> bytes:
    """A line of OpenAI's; the custom_id in ASCII, to come back as it was, be it half of an emoji."""
    begun = json.dumps({"id": random_id("batch_req_", 32), "custom_id": custom_id})[:-1].encode()
    if isinstance(outcome, Failure):
        error = {"code": outcome.code, "message": outcome.message}
        return b'%b, "response": null, "error": %b}\n' % (begun, json.dumps(error).encode())
    about = json.dumps({"status_code": outcome.status, "request_id": outcome.request_id})[:-1].encode()
    body = outcome.body
    for separator, escape in _SEPARATORS:
        body = body.replace(separator, escape)
    return b'%b, "response": %b, "body": %b}, "error": null}\n' % (begun, about, body)
