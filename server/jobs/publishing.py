"""Makes a trainer's result a model that can be called. Every step can be repeated, as the server may die in between."""

import csv
import io
from typing import Any

from adapters import names
from adapters.errors import AdapterError
from server.inference.catalog import Catalog
from server.state.files import Files
from server.state.jobs import JobRow, Jobs
from server.state.status import Status
from training.directory import JobDirectory, read_lines
from training.job import KEPT_CHECKPOINTS, Failure, Result


class Publishing:
    """Registers the results of jobs, owned by the organization."""

    def __init__(self, jobs: Jobs, files: Files, catalog: Catalog, organization: str) -> None:
        self._jobs = jobs
        self._files = files
        self._catalog = catalog
        self._organization = organization

    def publish(self, row: JobRow, result: Result) -> Failure | None:
        """Register adapter, checkpoints and result file, end the job, and move its gate's alias."""
        directory = self._jobs.directory(row.id)
        try:
            for checkpoint in result.checkpoints[-KEPT_CHECKPOINTS:]:
                self._catalog.register(
                    names.checkpoint(row.result_name, checkpoint.step),
                    directory.path / checkpoint.directory,
                    self._organization,
                )
            self._catalog.register(row.result_name, directory.adapter, self._organization)
        except AdapterError as error:
            return Failure(code="invalid_adapter", message=f"the trained adapter cannot be served: {error}")
        table = io.BytesIO(result_csv(directory).encode())
        file_id = "file-" + row.id.removeprefix("ftjob-")
        self._files.create(table, "step_metrics.csv", "fine-tune-results", file_id=file_id)
        if self._jobs.advance(
            row.id,
            Status.SUCCEEDED,
            fine_tuned_model=row.result_name,
            trained_tokens=result.trained_tokens,
            result_file=file_id,
            hyperparameters=result.hyperparameters,
        ):
            self.promote(row, result, directory)
            directory.event(f"New fine-tuned model created: {row.result_name}")
            directory.event("The job has successfully completed")
        directory.drop_checkpoints()
        return None

    def promote(self, row: JobRow, result: Result, directory: JobDirectory) -> None:
        """Move the gate's alias to the new model if it passed; else write an event that the alias stays."""
        verdict = result.verdict
        if verdict is None or verdict.alias is None:
            return
        if not verdict.passed:
            directory.event(f"{verdict.alias} stays where it is: the gate is not passed", level="warn")
            return
        judged, serves = directory.job().incumbent_name, self._catalog.served(verdict.alias)
        if serves is not None and serves != judged:
            directory.event(
                f"{verdict.alias} stays where it is: it serves {serves} by now, and the job was judged against "
                f"{judged or 'the base'}",
                level="warn",
            )
            return
        try:
            self._catalog.set_alias(verdict.alias, {row.result_name: 1}, self._organization)
        except AdapterError as error:
            directory.event(f"{verdict.alias} could not be moved: {error}", level="error")
        else:
            directory.event(f"The gate is passed: {verdict.alias} is now {row.result_name}")


def result_csv(directory: JobDirectory) -> str:
    """OpenAI's result file, a row per step."""
    columns = {
        "step": "step",
        "train_loss": "train_loss",
        "train_accuracy": "train_mean_token_accuracy",
        "valid_loss": "full_valid_loss",
        "valid_mean_token_accuracy": "full_valid_mean_token_accuracy",
    }
    steps: dict[int, dict[str, Any]] = {}
    for record in read_lines(directory.metrics_file):
        steps.setdefault(record["step"], {}).update(record)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for step in sorted(steps):
        writer.writerow(steps[step].get(key, "") for key in columns.values())
    return text.getvalue()
