"""`tuneport jobs …`: fine-tuning jobs of a running server, from a terminal."""

import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from server.cli.client import LOCAL, Key, Url, call, call_text, given
from server.state.status import ENDED, Status

app = typer.Typer(no_args_is_help=True, help="Fine-tuning jobs of a running server.")

JobId = Annotated[str, typer.Argument(help="ftjob-…, as `tuneport jobs list` shows it.", callback=given)]

POLL_SECONDS = 1.0
EVENTS_SHOWN = 8


@app.command("list")
def list_jobs(url: Url = LOCAL, key: Key = "") -> None:
    """List the last hundred jobs, newest first."""
    for job in call(url, key, "GET", "/v1/fine_tuning/jobs?limit=100")["data"]:
        _print(job)


@app.command()
def watch(job_id: JobId, url: Url = LOCAL, key: Key = "") -> None:
    """Show a job's loss curve and events as they come, until it ends."""
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(), refresh_per_second=4) as live:
        events: dict[str, dict[str, Any]] = {}
        while True:
            job = call(url, key, "GET", _path(job_id))
            page = call(url, key, "GET", f"{_path(job_id)}/events?limit=100")
            news = {event["id"]: event for event in page["data"]}
            while page["has_more"] and page["last_id"] not in events:
                page = call(url, key, "GET", f"{_path(job_id)}/events?limit=100&after={page['last_id']}")
                news |= {event["id"]: event for event in page["data"]}
            events = dict(sorted((events | news).items(), key=lambda one: int(one[0].rpartition("-")[2])))
            live.update(_screen(job, list(events.values()), live.console.width), refresh=True)
            if job["status"] in ENDED:
                break
            time.sleep(POLL_SECONDS)
    if job["status"] != Status.SUCCEEDED:
        raise typer.Exit(1)


@app.command()
def cancel(job_id: JobId, url: Url = LOCAL, key: Key = "") -> None:
    """Cancel a job that has not ended."""
    _print(call(url, key, "POST", f"{_path(job_id)}/cancel"))


@app.command()
def pause(job_id: JobId, url: Url = LOCAL, key: Key = "") -> None:
    """Stop a job after saving a checkpoint."""
    _print(call(url, key, "POST", f"{_path(job_id)}/pause"))


@app.command()
def resume(job_id: JobId, url: Url = LOCAL, key: Key = "") -> None:
    """Go on with a paused job."""
    _print(call(url, key, "POST", f"{_path(job_id)}/resume"))


@app.command()
def report(
    job_id: JobId,
    output: Annotated[Path | None, typer.Option(help="Write the HTML page there; default: Markdown here.")] = None,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Show base against fine-tuned: figures, answers side by side, what was forgotten, the gate's verdict."""
    form = "html" if output else "markdown"
    answer = call_text(url, key, f"{_path(job_id)}/report?format={form}")
    if output is None:
        typer.echo(answer)
    else:
        output.write_text(answer, encoding="utf-8")
        typer.echo(f"written: {output}")


def _path(job_id: str) -> str:
    return f"/v1/fine_tuning/jobs/{quote(job_id, safe='')}"


def _print(job: dict[str, Any]) -> None:
    what = job["fine_tuned_model"] or (job["error"] or {}).get("message", "").partition("\n")[0]
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job["created_at"]))
    typer.echo("  ".join([job["id"], f"{job['status']:16}", when, f"{job['method']['type']:13}", what]).rstrip())


def _screen(job: dict[str, Any], events: list[dict[str, Any]], width: int) -> Any:
    """The screen of `watch`: the job's line, its curves, its last messages."""
    from rich.console import Group
    from rich.text import Text

    metrics = [event["data"] for event in events if event["type"] == "metrics"]
    messages = [event for event in events if event["type"] == "message"][-EVENTS_SHOWN:]
    colours = {"info": "dim", "warn": "yellow", "error": "red"}
    step = f"step {metrics[-1]['step']} of {metrics[-1]['total_steps']}" if metrics else "no step yet"
    left = job["estimated_finish"] and job["status"] == Status.RUNNING and job["estimated_finish"] - time.time()
    finish = f", about {max(0, left):.0f} s left" if left else ""
    parts: list[Any] = [Text(f"{job['id']}  {job['status']}  {step}{finish}", style="bold")]
    if len(metrics) > 1:
        parts.append(Text.from_ansi(_curves(metrics, min(width, 100))))
    parts += [Text(event["message"].partition("\n")[0], style=colours[event["level"]]) for event in messages]
    if job["fine_tuned_model"]:
        parts.append(Text(f"model: {job['fine_tuned_model']}", style="green"))
    return Group(*parts)


def _curves(metrics: list[dict[str, Any]], width: int) -> str:
    """Loss or reward by step, drawn with characters."""
    import plotext

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(width, 16)
    for name, label in (
        ("train_loss", "training loss"),
        ("full_valid_loss", "validation loss"),
        ("train_mean_reward", "training reward"),
    ):
        points = [(row["step"], row[name]) for row in metrics if name in row]
        if points:
            marker = "fhd" if name.startswith("train") else "o"
            plotext.plot(*zip(*points, strict=True), label=label, marker=marker)
    return plotext.build()
