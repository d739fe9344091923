"""`/v1/fine_tuning/jobs`: create, list, retrieve, cancel, events, checkpoints; method `supervised`."""

import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from adapters import names
from server.http.auth import Caller
from server.openai.lists import After, Limit, page
from server.services import Services, Use
from server.state.errors import InvalidState, NotFound
from server.state.ids import random_id
from server.state.jobs import RUNNING
from server.state.tables import JobRow
from training.job import Hyperparameters, Result, read_lines

router = APIRouter(prefix="/v1/fine_tuning/jobs")

Label = Annotated[str, Field(max_length=512)]


class SupervisedMethod(BaseModel):
    """`method.supervised`."""

    hyperparameters: Hyperparameters | None = None


class Method(BaseModel):
    """`method`; the others of OpenAI's are refused by name."""

    type: Literal["supervised"]
    supervised: SupervisedMethod | None = None


class JobRequest(BaseModel):
    """A job to create; `hyperparameters` beside `method` is the API's old form."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=names.MAX_SUFFIX_LENGTH)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    metadata: Annotated[dict[Annotated[str, Field(max_length=64)], Label], Field(max_length=16)] | None = None
    integrations: Annotated[list[Any], Field(max_length=0)] | None = None

    def wanted(self) -> Hyperparameters:
        """The hyperparameters, in whichever form they came."""
        if self.method is not None and self.method.supervised is not None:
            return self.method.supervised.hyperparameters or Hyperparameters()
        return self.hyperparameters or Hyperparameters()


@router.post("")
def create(body: JobRequest, use: Use, caller: Caller) -> dict[str, Any]:
    """Queue a job; its files are checked in the trainer, before anything is trained."""
    base = use.catalog.base.name
    if body.model != base:
        use.catalog.get(body.model)  # an unknown name is 404; what is left can be called, not trained
        raise InvalidState(f"{body.model} cannot be fine-tuned; this server fine-tunes {base}", "model")
    for param, file_id in (("training_file", body.training_file), ("validation_file", body.validation_file)):
        if file_id is not None:
            _check_file(use, file_id, param)
    identifier = random_id("")
    row = use.jobs.create(
        f"ftjob-{identifier}",
        model=base,
        training_file=body.training_file,
        validation_file=body.validation_file,
        result_name=names.mint(base, use.settings.organization, body.suffix, identifier[:8]),
        seed=secrets.randbelow(2**31) if body.seed is None else body.seed,
        hyperparameters=body.wanted(),
        labels=body.metadata,
    )
    use.queue.wake()
    return _wire(row, use)


@router.get("")
def list_jobs(use: Use, caller: Caller, after: After = None, limit: Limit = 20) -> dict[str, Any]:
    """All jobs, newest first."""
    return page([_wire(row, use) for row in use.jobs.all()], after, limit)


@router.get("/{job_id}")
def retrieve(job_id: str, use: Use, caller: Caller) -> dict[str, Any]:
    """One job."""
    return _wire(use.jobs.get(job_id), use)


@router.post("/{job_id}/cancel")
async def cancel(job_id: str, use: Use, caller: Caller) -> dict[str, Any]:
    """Cancel a job that has not ended."""
    return _wire(await use.queue.cancel(job_id), use)


@router.get("/{job_id}/events")
def events(job_id: str, use: Use, caller: Caller, after: After = None, limit: Limit = 20) -> dict[str, Any]:
    """What happened, newest first."""
    directory = use.jobs.directory(use.jobs.get(job_id).id)
    identifier = job_id.removeprefix("ftjob-")
    items = [
        {"id": f"ftevent-{identifier}-{index}", "object": "fine_tuning.job.event", **event}
        for index, event in enumerate(directory.events())
    ]
    return page(items[::-1], after, limit)


@router.get("/{job_id}/checkpoints")
def checkpoints(job_id: str, use: Use, caller: Caller, after: After = None, limit: Limit = 10) -> dict[str, Any]:
    """The checkpoints of a job that succeeded, newest first; each can be called under its name."""
    row = use.jobs.get(job_id)
    outcome = use.jobs.directory(job_id).outcome()
    saved = outcome.checkpoints if isinstance(outcome, Result) and row.fine_tuned_model else []
    items = [
        {
            "id": f"ftckpt-{job_id.removeprefix('ftjob-')}-{checkpoint.step}",
            "object": "fine_tuning.job.checkpoint",
            "created_at": checkpoint.created_at,
            "fine_tuned_model_checkpoint": names.checkpoint(row.result_name, checkpoint.step),
            "fine_tuning_job_id": job_id,
            "metrics": checkpoint.metrics,
            "step_number": checkpoint.step,
        }
        for checkpoint in reversed(saved)
    ]
    return page(items, after, limit)


def _check_file(use: Services, file_id: str, param: str) -> None:
    try:
        file = use.files.get(file_id)
    except NotFound:
        raise InvalidState(f"invalid {param}: {file_id} does not exist", param) from None
    if file.purpose != "fine-tune":
        raise InvalidState(f"invalid {param}: {file_id} has purpose {file.purpose!r}; expected 'fine-tune'", param)


def _wire(row: JobRow, use: Services) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "fine_tuning.job",
        "created_at": row.created_at,
        "error": row.error,
        "estimated_finish": _estimated_finish(row, use),
        "fine_tuned_model": row.fine_tuned_model,
        "finished_at": row.finished_at,
        "hyperparameters": row.hyperparameters,
        "integrations": [],
        "metadata": row.labels,
        "method": {"type": "supervised", "supervised": {"hyperparameters": row.hyperparameters}},
        "model": row.model,
        "organization_id": use.settings.organization,
        "result_files": [row.result_file] if row.result_file else [],
        "seed": row.seed,
        "status": row.status,
        "trained_tokens": row.trained_tokens,
        "training_file": row.training_file,
        "validation_file": row.validation_file,
    }


def _estimated_finish(row: JobRow, use: Services) -> int | None:
    """Unix seconds, from the pace so far; None before the second step."""
    if row.status not in RUNNING:
        return None
    steps = read_lines(use.jobs.directory(row.id).metrics_file)
    if len(steps) < 2 or steps[-1]["step"] <= steps[0]["step"]:
        return None
    pace = (steps[-1]["time"] - steps[0]["time"]) / (steps[-1]["step"] - steps[0]["step"])
    return int(steps[-1]["time"] + pace * (steps[-1]["total_steps"] - steps[-1]["step"]))
