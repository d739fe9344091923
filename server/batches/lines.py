"""A batch's input, checked line by line before a single one is answered, and the records of its answers."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_LINES = 50_000  # OpenAI's
MAX_ERRORS = 100


@dataclass(frozen=True)
class Line:
    """A request of a batch."""

    custom_id: str
    body: dict[str, Any]


def read(path: Path) -> Iterator[Line]:
    """The requests of a checked file."""
    with path.open("rb") as stream:  # as `check` reads it: a line ends with LF, and only with that
        for raw in stream:
            if raw.strip():
                content = json.loads(raw)
                yield Line(content["custom_id"], content["body"])


def check(path: Path, endpoint: str) -> tuple[int, list[dict[str, Any]]]:
    """How many requests a file has, and what is wrong with it, in the form of OpenAI's `errors.data`."""
    seen: set[str] = set()
    found: list[dict[str, Any]] = []

    def wrong(number: int | None, code: str, message: str, param: str | None = None) -> None:
        found.append({"code": code, "line": number, "message": message, "param": param})

    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            if not raw.strip():
                continue
            if len(seen) >= MAX_LINES:
                wrong(None, "too_many_tasks", f"more than {MAX_LINES} requests; split the file")
            if len(found) >= MAX_ERRORS:
                break
            try:
                line = json.loads(raw)
            except (ValueError, RecursionError):
                wrong(number, "invalid_json_line", "This line is not parseable as valid JSON.")
                continue
            custom_id = line.get("custom_id") if isinstance(line, dict) else None
            if not isinstance(custom_id, str) or not custom_id:
                wrong(number, "missing_required_parameter", "expected a string that names the request", "custom_id")
            elif custom_id in seen:
                wrong(number, "duplicate_custom_id", f"{custom_id!r} names another line too", "custom_id")
            elif line.get("method") != "POST":
                wrong(number, "invalid_method", f"method is {line.get('method')!r}; expected 'POST'", "method")
            elif line.get("url") != endpoint:
                wrong(
                    number, "mismatched_endpoint", f"url is {line.get('url')!r}; the batch is for {endpoint!r}", "url"
                )
            elif not isinstance(line.get("body"), dict):
                wrong(number, "missing_required_parameter", "expected the request's object", "body")
            elif line["body"].get("stream"):
                wrong(number, "invalid_request", "a batch cannot be streamed; leave 'stream' out", "body.stream")
            if isinstance(custom_id, str):
                seen.add(custom_id)
    if not seen and not found:
        wrong(None, "empty_file", "the file holds no requests")
    return len(seen), found


class Answers:
    """The answers so far, a line each as OpenAI writes them; what a crash tore is written again."""

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
        """Write an answer."""
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()
        self.done[record["custom_id"]] = succeeded(record)

    def close(self) -> None:
        """Close the file, which stays."""
        self._stream.close()

    def split(self, good: Path, bad: Path) -> None:
        """Write the answers that succeeded and those that did not into files of their own."""
        with self._path.open(encoding="utf-8") as lines, good.open("w") as well, bad.open("w") as badly:
            for line in lines:
                (well if succeeded(json.loads(line)) else badly).write(line)


def succeeded(record: dict[str, Any]) -> bool:
    """Whether the request was answered with success."""
    response = record["response"]
    return response is not None and response["status_code"] == 200
