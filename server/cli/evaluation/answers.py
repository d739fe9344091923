"""Asks a served model every row's prompt, at low priority, and keeps the answers so that a stopped run can go on."""

import asyncio
import fcntl
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt

from adapters.chat import template
from server.cli.client import NoAnswer, authorization, content_of
from training.data.rows import Row
from training.graders.judge import passing
from training.render import tools, turns

AT_ONCE = 32
TIMEOUT_SECONDS = 600
TRIES = 8
LONGEST_WAIT_SECONDS = 60.0
BAD_REQUEST = 400
# Fields that some models refuse (OpenAI's reasoning models), and what to send instead
OTHERWISE = {"max_tokens": "max_completion_tokens", "temperature": None}


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served.

    Attributes:
        url: with or without `/v1` at its end.
        ours: it is a Tuneport server, so requests are sent at low priority.
    """

    url: str
    key: str
    ours: bool = True

    def client(self) -> httpx.AsyncClient:
        """An HTTP client for the endpoint.

        Raises:
            NoAnswer: the URL is not valid.
        """
        try:
            root = httpx.URL(self.url.rstrip("/").removesuffix("/v1"))
        except httpx.InvalidURL as error:
            raise NoAnswer(f"no answer from {self.url}: {error}") from error
        return httpx.AsyncClient(base_url=root, headers=authorization(self.key), timeout=TIMEOUT_SECONDS)


class Kept:
    """Answers, written to a file as they come, a line each; without a path, only kept in memory."""

    def __init__(self, path: Path | None) -> None:
        self._answers: dict[str, str] = {}
        self._file = path.open("a+", encoding="utf-8") if path else None

    def __enter__(self) -> "Kept":
        """Read the answers in the file; a line that a crash cut off is ignored, so its row is asked again.

        Raises:
            NoAnswer: another run is writing to the file.
        """
        if self._file is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._file.close()
                raise NoAnswer(f"another run keeps its answers in {self._file.name}") from error
            self._file.seek(0)
            for line in self._file:
                try:
                    kept = json.loads(line)
                    self._answers[kept["request"]] = kept["answer"]
                except (KeyError, TypeError, ValueError):
                    continue
            if self._answers:
                self._file.write("\n")  # the last line may have been cut off
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def get(self, request: str) -> str | None:
        """The answer to the request, if there is one."""
        return self._answers.get(request)

    def add(self, request: str, model: str, answer: str) -> None:
        """Keep an answer."""
        self._answers[request] = answer
        if self._file is not None:
            self._file.write(json.dumps({"request": request, "model": model, "answer": answer}) + "\n")
            self._file.flush()


async def first_model(endpoint: Endpoint) -> str:
    """The model that a server lists first; for a Tuneport server, the base.

    Raises:
        NoAnswer: the server does not answer.
    """
    async with endpoint.client() as client:
        return content_of(await _sent(client.get("/v1/models")), endpoint.url)["data"][0]["id"]


async def ask(
    endpoint: Endpoint, model: str, rows: Sequence[Row], max_tokens: int, kept: Kept, tick: Callable[[], object]
) -> list[str]:
    """The model's answer to each row's prompt.

    Args:
        tick: called after each answer.

    Raises:
        NoAnswer: a row could not be answered; all answers received are kept.
    """
    room = asyncio.Semaphore(AT_ONCE)
    failures: list[NoAnswer] = []
    asked: list[dict[str, Any]] = []
    for row in rows:
        body = {"model": model, "messages": turns(row.prompt), "temperature": 0, "max_tokens": max_tokens}
        asked.append({**body, "tools": list(shown)} if (shown := tools(row)) else body)
    async with endpoint.client() as client:

        async def one(body: dict[str, Any]) -> str:
            name = hashlib.sha256(json.dumps([endpoint.url, body], sort_keys=True).encode()).hexdigest()
            answer = kept.get(name)
            if answer is None:
                async with room:
                    if failures:  # begin no more; answers under way are kept
                        return ""
                    try:
                        answer = await _answer(client, {**body, "service_tier": "flex"} if endpoint.ours else body)
                    except NoAnswer as error:
                        failures.append(error)
                        return ""
                kept.add(name, model, answer)
            tick()
            return answer

        answers = await asyncio.gather(*map(one, asked))
    if failures:
        raise failures[0]
    return answers


async def _answer(client: httpx.AsyncClient, body: dict[str, Any]) -> str:
    while True:
        again = AsyncRetrying(
            retry=retry_if_result(lambda answer: passing(answer.status_code)),
            stop=stop_after_attempt(TRIES),
            wait=_wait,
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        answer: httpx.Response = await again(_post, client, body)
        refused = _refused(answer)
        if refused not in OTHERWISE or refused not in body:
            break
        value = body.pop(refused)
        if (instead := OTHERWISE[refused]) is not None:
            body[instead] = value
    message = content_of(answer, str(answer.url))["choices"][0]["message"]
    return template.written(message["content"], message.get("tool_calls") or ()).strip()


async def _post(client: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response:
    return await _sent(client.post("/v1/chat/completions", json=body))


async def _sent(request: Any) -> httpx.Response:
    try:
        return await request
    except httpx.RequestError as error:
        raise NoAnswer(f"no answer from {error.request.url}: {error}") from error


def _wait(state: RetryCallState) -> float:
    """Seconds to wait: as many as the server says, else longer each time."""
    answer: httpx.Response | None = state.outcome.result() if state.outcome else None
    said = answer.headers.get("retry-after", "") if answer is not None else ""
    return min(float(said) if said.isdigit() else 2.0**state.attempt_number, LONGEST_WAIT_SECONDS)


def _refused(answer: httpx.Response) -> str | None:
    """The field that the endpoint refused, if it did."""
    try:
        return answer.json()["error"]["param"] if answer.status_code == BAD_REQUEST else None
    except (KeyError, TypeError, ValueError):
        return None
