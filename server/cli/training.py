"""`tuneport train`: one job directory, one trainer process, and its events on the terminal."""

import secrets
import subprocess
import time
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from adapters import names
from adapters.chat import apart
from server.cli.client import fault, read_json
from server.cli.serving import find_base
from training.directory import TRAINER, JobDirectory
from training.job import Failure, Method, Result, TrainingJob
from training.kinds import Kind

POLL_SECONDS = 0.3


def train(
    data: Path,
    model: str,
    suffix: str,
    validation: Path | None,
    output: Path,
    method: Kind,
    grader: Path | None,
    chat_template: Path | None,
    wanted: dict[str, str],
    seed: int,
) -> int:
    """Train, and print where the adapter is; return the exit status."""
    console = Console(markup=False, highlight=False, soft_wrap=True)  # paths and commands are not wrapped
    content: dict[str, Any] = {"type": method, "hyperparameters": wanted}
    if grader is not None:
        content["grader"] = read_json(grader)
    try:
        if chat_template is not None:
            content["chat_template"] = chat_template.read_text(encoding="utf-8")
            if wrong := apart.fault(content["chat_template"]):
                raise ValueError(f"{chat_template} is {wrong}")
        base = find_base(model)
        job = TrainingJob(
            id=f"ftjob-{secrets.token_hex(6)}",
            base_model=base.name,
            base_path=base.path,
            training_file=data.resolve(strict=True),
            validation_file=validation.resolve(strict=True) if validation else None,
            method=TypeAdapter[Method](Method).validate_python(content),
            seed=seed,
        )
        name = names.mint(base.name, "personal", suffix, job.id[-8:])
    except ValidationError as error:
        console.print(f"error: {fault(error, content)}", style="red")
        return 2
    except (OSError, ValueError) as error:
        console.print(f"error: {error}", style="red")
        return 2
    return _run(job, name, output, console)


def repeat(directory: Path, output: Path) -> int:
    """Train once more as a job did, into a new directory; return the exit status."""
    console = Console(markup=False, highlight=False, soft_wrap=True)
    try:
        old = JobDirectory(directory).job()
    except (OSError, ValidationError) as error:
        console.print(f"error: {directory} is no job's directory: {error}", style="red")
        return 2
    needed = (old.base_path, old.parent, old.incumbent, old.training_file, old.validation_file, old.retention_file)
    if gone := [str(path) for path in needed if path is not None and not path.exists()]:
        console.print(f"error: the job cannot be repeated without {', '.join(gone)}", style="red")
        return 1
    job = old.model_copy(update={"id": f"ftjob-{secrets.token_hex(6)}", "wandb": None})
    return _run(job, names.mint(job.base_model, "personal", "again", job.id[-8:]), output, console)


def _run(job: TrainingJob, name: str, output: Path, console: Console) -> int:
    """Run a job in a directory of its own, and say where its result is."""
    directory = JobDirectory.create((output / job.id).absolute(), job)
    outcome = follow(directory, console)
    if isinstance(outcome, Failure) or outcome is None:
        console.print(f"failed: {outcome.message if outcome else 'the trainer died'}", style="red")
        console.print(f"trainer's log: {directory.log_file}")
        return 1
    console.print(f"adapter: {directory.adapter} (best of {len(outcome.checkpoints)}: step {outcome.best_step})")
    console.print(f"report: {directory.report_html}")
    console.print(f'to serve it: POST /admin/adapters {{"name": "{name}", "path": "{directory.adapter}"}}')
    return 0


def follow(directory: JobDirectory, console: Console) -> Result | Failure | None:
    """Run a job's trainer and show its events; return its outcome, or None if it died."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with (
        directory.log_file.open("ab") as log,
        subprocess.Popen([*TRAINER, str(directory.description)], stdout=log, stderr=log) as process,
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
    ):
        bar = progress.add_task("preparing", total=None)
        seen, ended = 0, False
        while not ended:
            ended = process.poll() is not None  # after the end, read the events once more
            events = directory.events(seen)
            seen += len(events)
            for event in events:
                if event["type"] == "metrics":
                    step = event["data"]
                    figures = event["message"].partition(": ")[2]
                    progress.update(bar, total=step["total_steps"], completed=step["step"], description=figures)
                else:
                    progress.console.print(event["message"])
            time.sleep(0 if ended else POLL_SECONDS)
    return directory.outcome()
