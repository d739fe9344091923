"""score_model and label_model graders: ask a model at an OpenAI-compatible endpoint for a number or a label.

The judge is told to answer with JSON; the last `result` in its answer counts, else the last number, since judges think
aloud first, in numbered points. `response_format` is not used, as half of the servers with this API refuse it.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from training.errors import TrainingError
from training.graders.models import LabelModel, ScoreModel
from training.graders.templates import fill

URL_VARIABLE = "TUNEPORT_JUDGE_URL"
KEY_VARIABLE = "TUNEPORT_JUDGE_API_KEY"
TIMEOUT_SECONDS = 120.0
LAST_CHARACTERS = 20_000  # of an answer are read
_FIGURE = r"(-?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?)"
_NUMBER = re.compile(_FIGURE)
_RESULT = re.compile(rf'"result"\s*:\s*"?{_FIGURE}')  # in text that is nearly JSON
_OF = re.compile(rf"(?:/|\bof)\s*{_FIGURE}")  # 7/10, 7 out of 10
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Judge:
    """A judge's endpoint: an address that ends in /v1, and a key for it."""

    url: str
    key: str

    @classmethod
    def from_environment(cls) -> "Judge | None":
        """The judge that the server passed to this trainer."""
        url = os.environ.get(URL_VARIABLE)
        return cls(url, os.environ.get(KEY_VARIABLE, "none")) if url else None


class JudgeUnavailable(TrainingError, RuntimeError):
    """There is no judge, or it does not answer."""


class JudgeRefused(TrainingError, ValueError):
    """The judge's answer holds no number within the range, or none of the labels."""


def require(judge: Judge | None) -> Judge:
    """The judge, if there is one.

    Raises:
        JudgeUnavailable: there is no judge.
    """
    if judge is None:
        raise JudgeUnavailable(
            f"score_model and label_model graders need a judge: set {URL_VARIABLE} (https://host/v1) and {KEY_VARIABLE}"
        )
    return judge


def score(
    judge: Judge | None, grader: ScoreModel, item: Mapping[str, Any], sample: Mapping[str, Any]
) -> tuple[float, int]:
    """The judge's score, and the tokens that it took.

    Raises:
        JudgeUnavailable: there is no judge, or it does not answer.
        JudgeRefused: the judge's answer holds no number within the range.
        InvalidPath: a template names a field that the row does not have.
    """
    low, high = grader.range
    sampling = grader.sampling_params.model_dump(exclude_none=True) if grader.sampling_params else {}
    if "max_completions_tokens" in sampling:
        sampling["max_tokens"] = sampling.pop("max_completions_tokens")
    wanted = f'Answer with {{"result": N}}, N a number from {low:g} to {high:g}, and nothing else.'
    text, tokens = _said(judge, grader, item, sample, wanted, sampling)
    return _number(text, low, high), tokens


def label(
    judge: Judge | None, grader: LabelModel, item: Mapping[str, Any], sample: Mapping[str, Any]
) -> tuple[float, int]:
    """1 if the judge's label is among those that pass, else 0; and the tokens that it took.

    Raises:
        JudgeUnavailable, InvalidPath: see `score`.
        JudgeRefused: the judge's answer is none of the labels.
    """
    labels = ", ".join(json.dumps(one, ensure_ascii=False) for one in grader.labels)
    wanted = f'Answer with {{"result": L}}, L one of {labels}, and nothing else.'
    text, tokens = _said(judge, grader, item, sample, wanted, {})
    return float(_label(text, grader.labels) in grader.passing_labels), tokens


def _said(
    judge: Judge | None,
    grader: ScoreModel | LabelModel,
    item: Mapping[str, Any],
    sample: Mapping[str, Any],
    wanted: str,
    sampling: dict[str, Any],
) -> tuple[str, int]:
    """The end of the judge's answer, and the tokens that it took."""
    judge = require(judge)
    messages = [{"role": one.role, "content": fill(one.content, item, sample)} for one in grader.input]
    messages.append({"role": "user", "content": wanted})
    try:
        answer = _ask(judge, {"model": grader.model, "messages": messages, "temperature": 0, **sampling})
    except httpx.HTTPStatusError as error:
        raise JudgeUnavailable(
            f"the judge answered {error.response.status_code}: {error.response.text[:300]}"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise JudgeUnavailable(f"the judge did not answer: {error}") from error
    except ValueError as error:
        raise JudgeUnavailable(f"the judge's answer is not JSON: {error}") from error
    text, tokens = _read(answer)
    return text[-LAST_CHARACTERS:], tokens


def _read(answer: Any) -> tuple[str, int]:
    """The text of a chat completion, and its tokens, which some servers do not count."""
    try:
        text, usage = answer["choices"][0]["message"]["content"], answer.get("usage") or {}
        return "" if text is None else str(text), int(usage.get("total_tokens") or 0)
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise JudgeUnavailable("the judge's answer is no chat completion: expected choices[0].message") from error


def passing(status: int) -> bool:
    """Whether an endpoint of OpenAI's shape may answer otherwise a little later; its SDK tries the same again."""
    return status in (408, 409, 429) or status >= 500


def _retryable(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return passing(error.response.status_code)
    return isinstance(error, httpx.TransportError)


@retry(
    retry=retry_if_exception(_retryable), stop=stop_after_attempt(4), wait=wait_exponential_jitter(1, 20), reraise=True
)
def _ask(judge: Judge, body: dict[str, Any]) -> Any:
    url, headers = f"{judge.url.rstrip('/')}/chat/completions", {"authorization": f"Bearer {judge.key}"}
    answer = httpx.post(url, json=body, headers=headers, timeout=TIMEOUT_SECONDS)
    return answer.raise_for_status().json()


def _results(text: str) -> list[Any]:
    """The `result` of each JSON object in a text, in order; objects inside an object with a `result` do not count."""
    found: list[Any] = []
    start = text.find("{")
    while start >= 0:
        end = start + 1
        with suppress(ValueError, RecursionError):
            value, behind = _DECODER.raw_decode(text, start)
            if "result" in value:
                found.append(value["result"])
                end = behind
        start = text.find("{", end)
    return found


def _number(text: str, low: float, high: float) -> float:
    if results := _results(text):
        value = _figure(results[-1])
    else:
        found = _RESULT.findall(text) or _NUMBER.findall(_OF.sub("", text))
        value = float(found[-1]) if found else None
    if value is None:
        raise JudgeRefused(f"the judge answered {text[:200]!r}, which holds no number")
    if not low <= value <= high:
        raise JudgeRefused(f"the judge answered {value:g}; expected a number from {low:g} to {high:g}")
    return value


def _figure(result: Any) -> float | None:
    """A result as a number, if it is one or a text that begins with one."""
    if isinstance(result, str):
        written = _NUMBER.match(result.strip())
        return float(written.group()) if written else None
    with suppress(OverflowError):
        return float(result) if isinstance(result, int | float) and not isinstance(result, bool) else None
    return None


def _label(text: str, labels: Sequence[str]) -> str:
    results = _results(text)
    said = str(results[-1] if results else text).strip(" \n\"'.")
    for one in sorted(labels, key=said.__ne__):  # an exact match first
        if one.casefold() == said.casefold():
            return one
    raise JudgeRefused(f"the judge answered {text[:200]!r}; expected one of {', '.join(labels)}"[:500])
