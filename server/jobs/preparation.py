"""Writes a job's description into its directory. Models are copied there, since they may be removed meanwhile."""

import shutil
from pathlib import Path

from adapters.base import BaseModel
from adapters.errors import AdapterNotFound
from server.errors import InvalidRequest, NotFound
from server.inference.catalog import Catalog
from server.state.files import Files
from server.state.jobs import JobRow, Jobs
from training.directory import JobDirectory
from training.job import TrainingJob


class Preparation:
    """Makes the directories from which trainers run jobs."""

    def __init__(self, jobs: Jobs, files: Files, catalog: Catalog, base: BaseModel) -> None:
        self._jobs = jobs
        self._files = files
        self._catalog = catalog
        self._base = base

    def prepare(self, row: JobRow) -> JobDirectory:
        """The job's directory, with its description.

        Raises:
            InvalidRequest: a model or file that the job needs was removed while it waited.
        """
        parent = self._copy(row, row.parent, "parent") if row.parent else None
        incumbent, incumbent_name = parent, row.parent
        if (served := self._catalog.served(row.gate.get("alias"))) is not None and served != row.parent:
            incumbent, incumbent_name = self._copy(row, served, "incumbent"), served
        job = TrainingJob(
            id=row.id,
            base_model=self._base.name,
            base_path=self._base.path,
            chat_template=self._base.chat_template,
            parent=parent,
            incumbent=incumbent,
            incumbent_name=incumbent_name,
            training_file=self._path(row.training_file, "training_file"),
            validation_file=self._path(row.validation_file, "validation_file") if row.validation_file else None,
            retention_file=self._path(row.retention_file, "retention_file") if row.retention_file else None,
            method=row.method,  # pyright: ignore[reportArgumentType] (pydantic reads it)
            gate=row.gate,  # pyright: ignore[reportArgumentType]
            seed=row.seed,
            accept_findings=row.accept_findings,
            wandb=row.integrations[0]["wandb"] if row.integrations else None,
        )
        return JobDirectory.create(self._jobs.directory(row.id).path.absolute(), job)

    def _copy(self, row: JobRow, name: str, folder: str) -> Path:
        """Copy a model that the job needs into the job's directory; return its folder."""
        target = self._jobs.directory(row.id).path.absolute() / folder
        if not target.exists():
            registry = self._catalog.registry
            try:
                digest = registry.get(name).digest
            except AdapterNotFound:
                raise InvalidRequest(
                    f"the model {name}, which the job starts from or has to beat, was removed while it waited", "model"
                ) from None
            partial = target.with_name(f".{folder}")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(registry.store.path(digest), partial)
            partial.rename(target)
        return target

    def _path(self, file_id: str, field: str) -> Path:
        try:
            return self._files.get(file_id, needed=True).path.absolute()
        except NotFound:
            raise InvalidRequest(
                f"the file {file_id} was deleted while the job waited; upload it again", field
            ) from None
