"""A batch's input, all of which is checked before any of it is answered, and the records of its answers."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data import jsonl
from training.data.jsonl import quoted

MAX_LINES = 50_000  # OpenAI's
MAX_ERRORS = 100
MAX_LINE_CHARACTERS = 8 * 1024**2  # the default limit of a request's body
MAX_ID_CHARACTERS = 512  # of a custom_id; OpenAI names no limit


@dataclass(frozen=True)
class Line:
    """A request of a batch."""

    custom_id: str
    body: dict[str, Any]


def read(path: Path) -> Iterator[Line]:
    """The requests of a checked file."""
    for _, text in jsonl.lines(path):
        content = json.loads(text)
        yield Line(content["custom_id"], content["body"])


def check(path: Path, endpoint: str) -> tuple[int, list[dict[str, Any]]]:
    """How many requests a file has, and what is wrong with it, in the form of OpenAI's `errors.data`."""
    seen: set[str] = set()
    found: list[dict[str, Any]] = []

    def wrong(number: int | None, code: str, message: str, param: str | None = None) -> None:
        found.append({"code": code, "line": number, "message": message, "param": param})

    try:
        for number, text in jsonl.lines(path):
            if len(seen) >= MAX_LINES:
                wrong(None, "too_many_tasks", f"more than {MAX_LINES} requests; split the file")
            if len(found) >= MAX_ERRORS:
                break
            if len(text) > MAX_LINE_CHARACTERS:
                wrong(number, "invalid_request", f"longer than {MAX_LINE_CHARACTERS} characters")
                continue
            try:
                line = jsonl.load(text, halves=True)
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
    """The answers so far, a line each in OpenAI's form; a line that a crash cut off is dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.done: dict[str, bool] = {}  # custom_id -> success
        whole = 0
        with path.open("rb") as stream:
            for raw in stream:
                if not raw.endswith(b"\n"):
                    break
                whole += len(raw)
                record = json.loads(raw)
                self.done[record["custom_id"]] = succeeded(record)
        os.truncate(path, whole)
        self._stream = path.open("a", encoding="utf-8")

    def add(self, record: dict[str, Any]) -> None:
        """Write an answer in ASCII, so that any custom_id comes back as it was, even half a surrogate pair."""
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()
        self.done[record["custom_id"]] = succeeded(record)

    def close(self) -> None:
        """Close the file, without deleting it."""
        self._stream.close()

    def split(self, good: Path, bad: Path) -> None:
        """Copy the answers that succeeded into one file, the others into another."""
        with self._path.open("rb") as lines, good.open("wb") as well, bad.open("wb") as badly:
            for line in lines:
                (well if succeeded(json.loads(line)) else badly).write(line)


def succeeded(record: dict[str, Any]) -> bool:
    """Whether the request was answered with success."""
    response = record["response"]
    return response is not None and response["status_code"] == 200
