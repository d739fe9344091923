"""`/v1/fine_tuning/jobs`: create, list, retrieve, cancel, pause, resume, events, checkpoints, reports."""

import secrets
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from adapters import names
from server.errors import Forbidden, NotFound
from server.http.identity import Caller
from server.openai.fine_tuning.requests import RETENTION_FILE, JobRequest
from server.openai.lists import After, Known, Limit, first, labelled, page
from server.services import Parts, Services
from server.state.jobs import JobRow, NewJob
from server.state.status import ACTIVE
from training.data.findings import DataReport
from training.directory import read_lines
from training.job import Result

router = APIRouter(prefix="/v1/fine_tuning/jobs")


@router.post("")
async def create(body: JobRequest, parts: Parts, caller: Caller) -> dict[str, Any]:
    """Queue a job; the trainer checks its files before it trains."""
    usual = parts.settings.gate if caller.admin else parts.settings.gate.model_copy(update={"alias": None})
    method, gate = body.wanted(), body.gate(usual)
    asked = body.needs_admin(gate, usual)
    if asked is not None and not caller.admin:
        raise Forbidden(f"{asked} decides what others are served: it needs an admin key, or a stricter value.")
    if method.chat_template is not None and not caller.admin:
        raise Forbidden("chat_template is code that runs in the server: it needs an admin key.")
    job = NewJob(
        model=body.model,
        training_file=body.training_file,
        validation_file=body.validation_file,
        retention_file=body.label(RETENTION_FILE),
        seed=secrets.randbelow(2**31) if body.seed is None else body.seed,
        method=method,
        gate=gate,
        accept_findings=body.accepts_findings(),
        integrations=[one.model_dump() for one in body.integrations or []],
        labels=body.metadata,
    )
    return await to_thread.run_sync(
        lambda: _wire(parts.creation.create(job, body.suffix), parts), limiter=parts.creations
    )


@router.get("", dependencies=[Known])
def list_jobs(
    request: Request,
    parts: Parts,
    after: After = None,
    limit: Limit = 20,
    metadata: Annotated[str | None, Query(description="metadata[k]=v: those labelled so; null: unlabelled.")] = None,
) -> dict[str, Any]:
    """All jobs, newest first; or only those with the given metadata."""
    rows = parts.jobs.newest(labelled(request, metadata), after, limit + 1)
    return first([_wire(row, parts) for row in rows], limit)


@router.get("/{job_id}")
def retrieve(job_id: str, parts: Parts) -> dict[str, Any]:
    """One job."""
    return _wire(parts.jobs.get(job_id), parts)


@router.post("/{job_id}/cancel")
async def cancel(job_id: str, parts: Parts) -> dict[str, Any]:
    """Cancel a job that has not ended."""
    return _wire(await parts.queue.cancel(job_id), parts)


@router.post("/{job_id}/pause")
async def pause(job_id: str, parts: Parts) -> dict[str, Any]:
    """Stop a job's trainer after saving a checkpoint; `resume` goes on from there."""
    return _wire(await parts.queue.pause(job_id), parts)


@router.post("/{job_id}/resume")
async def resume(job_id: str, parts: Parts) -> dict[str, Any]:
    """Queue a paused job again."""
    return _wire(await parts.queue.resume(job_id), parts)


@router.get("/{job_id}/events", dependencies=[Known])
def events(job_id: str, parts: Parts, after: After = None, limit: Limit = 20) -> dict[str, Any]:
    """A job's events, newest first."""
    directory = parts.jobs.directory(parts.jobs.get(job_id).id)
    identifier = job_id.removeprefix("ftjob-")
    items = [
        {"id": f"ftevent-{identifier}-{index}", "object": "fine_tuning.job.event", **event}
        for index, event in enumerate(directory.events())
    ]
    return page(items[::-1], after, limit)


@router.get("/{job_id}/checkpoints", dependencies=[Known])
def checkpoints(job_id: str, parts: Parts, after: After = None, limit: Limit = 10) -> dict[str, Any]:
    """The checkpoints of a job that succeeded, newest first; each can be called under its name."""
    row = parts.jobs.get(job_id)
    outcome = parts.jobs.directory(job_id).outcome()
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


Form = Annotated[Literal["json", "markdown"], Query(description="As JSON, or as Markdown to read.")]


@router.get("/{job_id}/data_report")
def data_report(job_id: str, parts: Parts, format: Form = "json") -> Response:
    """What was found in the training file; available as soon as the file was read."""
    path = parts.jobs.directory(parts.jobs.get(job_id).id).data_report
    if not path.exists():
        raise NotFound(f"{job_id} has no data report yet: its file was not read to the end")
    report = DataReport.model_validate_json(path.read_bytes())
    if format == "markdown":
        return PlainTextResponse(report.markdown(), media_type="text/markdown")
    return JSONResponse({"object": "fine_tuning.job.data_report", "job_id": job_id, **report.model_dump()})


@router.get("/{job_id}/report")
def report(
    job_id: str,
    parts: Parts,
    format: Annotated[
        Literal["html", "markdown", "json"], Query(description="A page, Markdown, or the figures.")
    ] = "html",
) -> Response:
    """Base against fine-tuned: figures, curves, answers side by side, what was forgotten, the gate's verdict."""
    directory = parts.jobs.directory(parts.jobs.get(job_id).id)
    path, media_type = {
        "html": (directory.report_html, "text/html"),
        "markdown": (directory.report_markdown, "text/markdown"),
        "json": (directory.evaluation, "application/json"),
    }[format]
    if not path.exists():
        raise NotFound(f"{job_id} has no report: it was not trained to the end")
    return FileResponse(path, media_type=media_type)


def _wire(row: JobRow, parts: Services) -> dict[str, Any]:
    kind = row.method["type"]
    configuration = {name: value for name, value in row.method.items() if name != "type"}
    return {
        "id": row.id,
        "object": "fine_tuning.job",
        "created_at": row.created_at,
        "error": row.error,
        "estimated_finish": _estimated_finish(row, parts),
        "fine_tuned_model": row.fine_tuned_model,
        "finished_at": row.finished_at,
        "hyperparameters": row.hyperparameters,
        "integrations": row.integrations,
        "metadata": row.labels,
        "method": {"type": kind, kind: {**configuration, "hyperparameters": row.hyperparameters}},
        "model": row.model,
        "organization_id": parts.settings.organization,
        "result_files": [row.result_file] if row.result_file else [],
        "seed": row.seed,
        "status": row.status,
        "trained_tokens": row.trained_tokens,
        "training_file": row.training_file,
        "validation_file": row.validation_file,
    }


def _estimated_finish(row: JobRow, parts: Services) -> int | None:
    """When the job will end, in Unix seconds, by the pace so far; None before the second step."""
    if row.status not in ACTIVE:
        return None
    steps = read_lines(parts.jobs.directory(row.id).metrics_file)
    if len(steps) < 2 or steps[-1]["step"] <= steps[0]["step"]:
        return None
    pace = (steps[-1]["time"] - steps[0]["time"]) / (steps[-1]["step"] - steps[0]["step"])
    return int(steps[-1]["time"] + pace * (steps[-1]["total_steps"] - steps[-1]["step"]))
