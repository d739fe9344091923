"""`/v1/fine_tuning/alpha/graders`: try a grader before a job uses it for hours."""

import time
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field

from server.errors import RateLimited
from server.http.identity import Caller
from server.jobs.creation import check_size
from server.services import Parts, Services
from server.state.keys import Key
from training.graders.grade import FAULTS, check_sources, grade
from training.graders.models import Reward
from training.wire import Description

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders")

T = TypeVar("T")

MAX_SAMPLE_LENGTH = 200_000


class ValidateRequest(Description):
    """A grader to check."""

    grader: Reward


class RunRequest(ValidateRequest):
    """A grader, an answer to grade, and the row it answers."""

    model_config = ConfigDict(protected_namespaces=())

    model_sample: Annotated[str, Field(max_length=MAX_SAMPLE_LENGTH)]
    item: dict[str, Any] | None = None


@router.post("/validate")
async def validate(body: ValidateRequest, request: Request, parts: Parts, caller: Caller) -> dict[str, Any]:
    """Check a grader; return it as it was understood."""
    check_size([body.grader], parts.settings.max_grader_bytes, "grader")
    await _one_of_few(parts, caller, request, check_sources, body.grader)
    return {"grader": body.grader.model_dump()}


@router.post("/run")
async def run(body: RunRequest, request: Request, parts: Parts, caller: Caller) -> dict[str, Any]:
    """Grade one answer; return the reward."""
    started = time.monotonic()
    check_size([body.grader], parts.settings.max_grader_bytes, "grader")
    await parts.limits.admit_grader(caller)
    rows, answers, judge = [body.item or {}], [body.model_sample], parts.settings.judge()
    graded = await _one_of_few(parts, caller, request, grade, body.grader, rows, answers, judge)
    result = graded[0]
    errors: dict[str, Any] = dict.fromkeys(FAULTS, False)
    for fault, detail in result.faults.items():
        errors[fault] = True
        if fault in ("python_grader_runtime_error", "model_grader_server_error"):
            errors[f"{fault}_details"] = detail
    return {
        "reward": result.score,
        "sub_rewards": result.parts,
        "model_grader_token_usage_per_model": result.tokens,
        "metadata": {
            "name": body.grader.name,
            "type": body.grader.type,
            "errors": errors,
            "execution_time": round(time.monotonic() - started, 4),
            "scores": result.parts,
            "token_usage": sum(result.tokens.values()) or None,
            "sampled_model_name": None,
        },
    }


async def _one_of_few(parts: Services, key: Key, request: Request, work: Callable[..., T], *arguments: Any) -> T:
    """Call `work`, which runs a grader, on one of a few threads that nothing else uses."""
    if not parts.graders.available_tokens:
        raise RateLimited(f"{int(parts.graders.total_tokens)} graders run already; try again soon", "requests", 2)
    with parts.limits.held("graders", key, request):
        return await to_thread.run_sync(work, *arguments, limiter=parts.graders)
