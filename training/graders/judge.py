"""A score_model grader: ask a model behind any endpoint of OpenAI's shape for a number.

The judge is told to answer with JSON; the last `result` in its answer counts, or else the last number: judges think
aloud first, in numbered points. `response_format` is not asked for: half of the servers that speak this API refuse it.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from training.graders.models import ScoreModel
from training.graders.templates import fill

URL_VARIABLE = "TUNEPORT_JUDGE_URL"
KEY_VARIABLE = "TUNEPORT_JUDGE_API_KEY"
TIMEOUT_SECONDS = 120.0
_RESULT = re.compile(r'"result"\s*:\s*"?(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)')
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


@dataclass(frozen=True)
class Judge:
    """Where judges are asked: an address that ends in /v1, and a key for it."""

    url: str
    key: str

    @classmethod
    def from_environment(cls) -> "Judge | None":
        """The one that the server named to its trainer."""
        url = os.environ.get(URL_VARIABLE)
        return cls(url, os.environ.get(KEY_VARIABLE, "none")) if url else None


class JudgeUnavailable(RuntimeError):
    """There is no judge, or it does not answer."""


class JudgeRefused(ValueError):
    """The judge's answer holds no number within the range."""


def require(judge: Judge | None) -> Judge:
    """The judge.

    Raises:
        JudgeUnavailable: there is none.
    """
    if judge is None:
        raise JudgeUnavailable(
            f"score_model graders need a judge: set {URL_VARIABLE} (https://host/v1) and {KEY_VARIABLE}"
        )
    return judge


def score(
    judge: Judge | None, grader: ScoreModel, item: Mapping[str, Any], sample: Mapping[str, Any]
) -> tuple[float, int]:
    """The judge's score, and the tokens it took.

    Raises:
        JudgeUnavailable: there is no judge, or it does not answer.
        JudgeRefused: its answer holds no number within the range.
        InvalidPath: a template names what the row does not have.
    """
    judge = require(judge)
    low, high = grader.range
    messages = [{"role": one.role, "content": fill(one.content, item, sample)} for one in grader.input]
    wanted = f'Answer with {{"result": N}}, N a number from {low:g} to {high:g}, and nothing else.'
    messages.append({"role": "user", "content": wanted})
    sampling = grader.sampling_params.model_dump(exclude_none=True) if grader.sampling_params else {}
    if "max_completions_tokens" in sampling:
        sampling["max_tokens"] = sampling.pop("max_completions_tokens")
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
    return _number(text, low, high), tokens


def _read(answer: Any) -> tuple[str, int]:
    """The text of a chat completion, and the tokens it took; some servers count none."""
    try:
        text, usage = answer["choices"][0]["message"]["content"], answer.get("usage") or {}
        return "" if text is None else str(text), int(usage.get("total_tokens") or 0)
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise JudgeUnavailable("the judge's answer is no chat completion: expected choices[0].message") from error


def _retryable(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (408, 409, 429) or error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


@retry(
    retry=retry_if_exception(_retryable), stop=stop_after_attempt(4), wait=wait_exponential_jitter(1, 20), reraise=True
)
def _ask(judge: Judge, body: dict[str, Any]) -> Any:
    url, headers = f"{judge.url.rstrip('/')}/chat/completions", {"authorization": f"Bearer {judge.key}"}
    answer = httpx.post(url, json=body, headers=headers, timeout=TIMEOUT_SECONDS)
    return answer.raise_for_status().json()


def _number(text: str, low: float, high: float) -> float:
    try:
        parsed = json.loads(text)
        found = parsed["result"] if isinstance(parsed, dict) else parsed
        value = float(found)
    except (ValueError, TypeError, KeyError, OverflowError):
        found = _RESULT.findall(text) or _NUMBER.findall(text)
        if not found:
            raise JudgeRefused(f"the judge answered {text[:200]!r}, which holds no number") from None
        value = float(found[-1])
    if not low <= value <= high:
        raise JudgeRefused(f"the judge answered {value:g}; expected a number from {low:g} to {high:g}")
    return value
