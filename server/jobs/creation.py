"""Makes a waiting job from a client's request, and refuses at once what could not be trained or served later."""

from collections.abc import Sequence
from importlib.util import find_spec

from adapters import names
from adapters.chat import apart
from adapters.errors import InvalidName
from server.errors import InvalidRequest, NotFound, RateLimited
from server.inference.catalog import Catalog
from server.jobs.queue import JobQueue
from server.state.files import Files
from server.state.ids import random_id
from server.state.jobs import JobRow, Jobs, NewJob
from training.graders.grade import require
from training.graders.judge import Judge, JudgeUnavailable
from training.graders.models import Grader
from training.graders.sandbox import BrokenSource, SandboxUnavailable
from training.job import Method, Preference, Reinforcement, Supervised


def check_size(graders: Sequence[Grader], limit: int, place: str) -> None:
    """Refuse graders that are too large together, since every list of jobs shows them.

    Raises:
        InvalidRequest: the graders have more than `limit` bytes.
    """
    size = sum(len(grader.model_dump_json()) for grader in graders)
    if size > limit:
        raise InvalidRequest(f"it has {size} bytes; at most {limit} are allowed (max_grader_bytes)", place)


class Creation:
    """Checks and queues jobs; the trainer checks the content of their files, before it trains."""

    def __init__(
        self,
        jobs: Jobs,
        files: Files,
        catalog: Catalog,
        queue: JobQueue,
        organization: str,
        *,
        full_models: bool,
        max_waiting: int,
        max_grader_bytes: int,
        judge: Judge | None,
    ) -> None:
        """Make one.

        Args:
            organization: part of the results' names.
            full_models: whether this server serves full models.
            max_waiting: limit on jobs that wait, run or are paused.
            max_grader_bytes: limit on a job's graders together.
            judge: the endpoint that score_model and label_model graders ask.
        """
        self._jobs = jobs
        self._files = files
        self._catalog = catalog
        self._queue = queue
        self._organization = organization
        self._full_models = full_models
        self._max_waiting = max_waiting
        self._max_grader_bytes = max_grader_bytes
        self._judge = judge

    def create(self, job: NewJob, suffix: str | None) -> JobRow:
        """Queue a job whose graders were checked.

        Args:
            suffix: part of the result's name.

        Raises:
            AdapterNotFound: there is no such model to start from.
            InvalidRequest: the job could not succeed.
            RateLimited: `max_waiting` jobs have not ended.
        """
        if self._jobs.unfinished() >= self._max_waiting:
            raise RateLimited(
                f"{self._max_waiting} jobs wait or run already (max_waiting_jobs); cancel one, or wait for its end",
                "requests",
            )
        parent = self._parent(job.model, job.method)
        for param, file_id in job.files().items():
            self._check_file(file_id, param)
        if job.method.type == "reinforcement" and job.validation_file is None:
            raise InvalidRequest("a reinforcement job needs a validation_file", "validation_file")
        self._check_possible(job.method)
        if len(job.integrations) > 1:
            raise InvalidRequest("a run goes to one project of Weights & Biases; give one integration", "integrations")
        if job.integrations and find_spec("wandb") is None:
            raise InvalidRequest("the wandb integration is not installed here: install tuneport[wandb]", "integrations")
        identifier = random_id("")
        row = self._jobs.create(f"ftjob-{identifier}", job, parent, self._result_name(suffix, identifier[:8]))
        self._queue.wake()
        return row

    def _parent(self, model: str, method: Method) -> str | None:
        """The adapter that the job continues to train; None: it starts from the base."""
        base = self._catalog.base.name
        if model == base:
            return None
        name = self._catalog.get(model).name
        if self._catalog.is_alias(name):
            raise InvalidRequest(f"{model} is an alias; name the version to go on from", "model")
        if isinstance(method, Supervised) and method.hyperparameters.weights == "full":
            raise InvalidRequest(f"full fine-tuning starts from {base}, not from an adapter", "model")
        if self._catalog.registry.get(name).full:
            raise InvalidRequest(
                f"{model} is a full model; going on from one is not supported, start from {base}", "model"
            )
        return name

    def _check_file(self, file_id: str, param: str) -> None:
        try:
            file = self._files.get(file_id)
        except NotFound:
            raise InvalidRequest(f"invalid {param}: {file_id} does not exist", param) from None
        if file.purpose != "fine-tune":
            raise InvalidRequest(
                f"invalid {param}: {file_id} has purpose {file.purpose!r}; expected 'fine-tune'", param
            )

    def _check_possible(self, method: Method) -> None:
        """Refuse a method that this server cannot train, grade or serve."""
        if method.chat_template is not None and (fault := apart.fault(method.chat_template)):
            raise InvalidRequest(f"it is {fault}", f"method.{method.type}.chat_template")
        if isinstance(method, Preference):
            return
        if isinstance(method, Reinforcement):
            return
        wanted, place = method.hyperparameters, "method.supervised.hyperparameters"
        if wanted.weights == "qlora" and find_spec("bitsandbytes") is None:
            raise InvalidRequest("qlora is not installed here: install tuneport[qlora]", f"{place}.weights")
        if wanted.keep == "model" and wanted.weights != "full":
            raise InvalidRequest("keep: only full fine-tuning leaves a model; set weights to 'full'", f"{place}.keep")
        if wanted.keep == "model" and not self._full_models:
            raise InvalidRequest(
                "this server serves no full models: set max_full_models, or keep: adapter", f"{place}.keep"
            )

    def check_graders(self, method: Method) -> None:
        """Refuse graders that could not run here; those in Python are loaded for it, which may take seconds each.

        Raises:
            InvalidRequest: one could not.
        """
        if isinstance(method, Preference):
            return
        only = isinstance(method, Reinforcement)
        graders = [method.grader] if only else method.graders
        place = f"method.{method.type}.{'grader' if only else 'graders'}"
        check_size(graders, self._max_grader_bytes, place)
        for grader in graders:
            try:
                require(grader, self._judge)
            except (BrokenSource, JudgeUnavailable, SandboxUnavailable) as error:
                raise InvalidRequest(str(error), place) from error

    def _result_name(self, suffix: str | None, identifier: str) -> str:
        try:
            return names.mint(self._catalog.base.name, self._organization, suffix, identifier)
        except InvalidName as error:
            raise InvalidRequest(f"the result's {error}; choose a shorter suffix", "suffix") from error
