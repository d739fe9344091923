"""`python -m training JOB.json`: run a job to its end, or go on where a killed run stopped.

Exit status 0: succeeded; 1: failed, and `failure.json` says why; 75: asked to stop, can go on if run again; any other:
killed, run it again.
"""

import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.manifest import Manifest
from training import defaults, spawner
from training.data import check, reading
from training.data.findings import DataReport
from training.data.rows import Example, Pair, Row, Task, under
from training.directory import JobDirectory, write_atomically
from training.errors import DiskFull, Interrupted, InvalidTrainingData, TrainingError
from training.job import Failure, Preference, Reinforcement, Result, Supervised, TrainingJob

if TYPE_CHECKING:
    from training.methods.outcome import Trained
    from training.proof.evaluation import Evaluation
    from training.proof.split import Parts

ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "true",
    # Look for GPUs without initialising CUDA, since a forked process could not use a GPU afterwards.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # OpenMP's threads spin while they wait for work. Two trainers on two cores, or one beside a busy engine, then make
    # 25 small products a second, where one alone makes 640. If threads sleep after 1,000 spins: 240, and 620 alone.
    "GOMP_SPINCOUNT": "1000",
}
GO_ON_LATER = 75  # EX_TEMPFAIL
_NO_ROOM = ("No space left on device", "File too large", "PytorchStreamWriter failed writing", "Disk quota exceeded")


def main() -> int:
    """Entry point."""
    if len(sys.argv) != 2:
        print("usage: python -m training JOB.json | --wait", file=sys.stderr)
        return 2
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if sys.argv[1] == "--wait":
        _forgo("sklearn", "bitsandbytes")
        return spawner.serve(work, _must_start_afresh)
    directory = JobDirectory(Path(sys.argv[1]).absolute().parent)
    _forgo("sklearn")
    if not _quantised(directory.job()):
        _forgo("bitsandbytes")
    return work(directory)


def work(directory: JobDirectory, on_lock: Callable[[], object] = lambda: None) -> int:
    """Run the job in this process; return the exit status.

    Args:
        on_lock: called when this process holds the job's lock.
    """
    _use_one_gpu()
    with directory.running():
        on_lock()
        try:
            outcome = directory.outcome() or _outcome(directory)
        except Interrupted:
            return GO_ON_LATER
    return 0 if isinstance(outcome, Result) else 1


def _use_one_gpu() -> None:
    """Hide all GPUs but the first: transformers splits a batch over all that it sees, and our losses do not allow that.

    Must run before CUDA is used in this process.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]


def _must_start_afresh(directory: JobDirectory) -> bool:
    """Whether a forked process cannot run the job: it needs a package that `_forgo` hid, or a GPU its parent used."""
    import torch

    # torch counts looking for a GPU as use, even if there is none; NVML, which a fork may ask, says if there is one.
    used = torch.cuda._is_in_bad_fork() and torch.cuda._device_count_nvml() > 0
    return _quantised(directory.job()) or used


def _quantised(job: TrainingJob) -> bool:
    return isinstance(job.method, Supervised) and job.method.hyperparameters.weights == "qlora"


def _forgo(*packages: str) -> None:
    """Hide installed packages: transformers and PEFT would spend seconds importing them, and need none of them here."""
    for package in packages:
        sys.modules[package] = None  # pyright: ignore[reportArgumentType] (Python's way to say: there is none)


def _outcome(directory: JobDirectory) -> Result | Failure:
    try:
        result: Result | Failure = run(directory.job(), directory)
    except Interrupted:
        raise
    except TrainingError as error:
        result = Failure(code=error.code, message=str(error), param=error.param)
    except Exception as error:  # noqa: BLE001 (the process border: the traceback is logged, the job fails)
        traceback.print_exc()
        if _no_room(error):
            shutil.rmtree(directory.checkpoints, ignore_errors=True)  # room to record the failure
            result = Failure(code=DiskFull.code, message="the disk is full: free some room, and start the job again")
        else:
            result = Failure(code="server_error", message=f"the trainer broke off: {type(error).__name__}: {error}")
    directory.finish(result)
    return result


def _no_room(error: Exception) -> bool:
    return any(sign in str(error) for sign in _NO_ROOM)


def run(job: TrainingJob, directory: JobDirectory) -> Result:
    """Check the data, train, prove; slow imports come after the check of the data."""
    directory.event("Validating training file")
    if job.wandb is not None:
        given = {
            "WANDB_PROJECT": job.wandb.project,
            "WANDB_ENTITY": job.wandb.entity,
            "WANDB_TAGS": ",".join(job.wandb.tags),
        }
        os.environ.update({name: value for name, value in given.items() if value})

    rows, held_out = _read(job, directory)
    if job.retention_file is not None:
        from training.proof import forgetting

        forgetting.questions(job.retention_file)  # used after the training, but checked before it

    from transformers import AutoConfig

    from training.proof.split import split
    from training.render import load_tokenizer

    config = AutoConfig.from_pretrained(job.base_path)
    tokenizer = load_tokenizer(job, [*rows, *(held_out or ())], directory.event)
    limit = config.max_position_embeddings
    report = check.check(
        job.training_file, job.method.type, validation=job.validation_file, tokenizer=tokenizer, limit=limit
    )
    write_atomically(directory.data_report, report)
    _heed(report, job, directory)
    parts = split(rows, held_out, job.seed)
    if parts.alike:
        directory.event(f"The rows are too much alike to hold some apart: {parts.alike}", level="warn")
    hyperparameters = defaults.resolve(job.method, rows=len(parts.train), hidden_size=config.hidden_size)
    directory.event(
        f"Files validated: {len(parts.train)} rows to train on ({report.tokens.total} tokens in the file), "
        f"{len(parts.selection)} to choose the checkpoint, {len(parts.proof)} for the proof; "
        f"{hyperparameters.n_epochs} epochs, batch size {hyperparameters.batch_size}, "
        f"learning rate {hyperparameters.learning_rate:.2g}",
        data={"hyperparameters": hyperparameters.wire(job.method)},
    )
    trained = _train(job, directory, tokenizer, parts.train, parts.selection, hyperparameters, limit)
    return _prove(trained, job, directory, tokenizer, parts, report)


def _read(job: TrainingJob, directory: JobDirectory) -> tuple[list[Row], list[Row] | None]:
    """Rows to train on, and rows to validate with; None: hold some out."""
    kind = job.method.type
    try:
        rows = reading.read(job.training_file, kind)
        validation = job.validation_file
        held_out = reading.read(validation, kind, "validation_file", 1) if validation else None
    except InvalidTrainingData:
        write_atomically(directory.data_report, check.check(job.training_file, kind, validation=job.validation_file))
        raise
    system = Manifest.read(job.parent).system_prompt if job.parent else None
    if system is not None:  # the result inherits the system prompt, and is served with it
        rows = [under(row, system) for row in rows]
        held_out = [under(row, system) for row in held_out] if held_out is not None else None
    return rows, held_out


def _heed(report: DataReport, job: TrainingJob, directory: JobDirectory) -> None:
    """Write the findings as events; errors end the job, except those that it accepts."""
    for finding in report.findings:
        directory.event(f"Data: {finding.message}", level="warn" if finding.level == "warning" else "info")
    accepted = check.ACCEPTABLE if job.accept_findings else ()
    faults = [finding for finding in report.errors if finding.check not in accepted]
    if faults:
        where = "; ".join(f"{one.message} (lines {', '.join(map(str, one.lines))})" for one in faults)
        advice = (
            ' To train on them nevertheless: metadata {"accept_findings": "true"}'
            if any(one.check in check.ACCEPTABLE for one in faults)
            else ""
        )
        raise InvalidTrainingData(where + advice, "training_file")


def _train(
    job: TrainingJob,
    directory: JobDirectory,
    tokenizer: Any,
    rows: list[Row],
    held_out: list[Row],
    hyperparameters: defaults.Resolved,
    limit: int,
) -> "Trained":
    from training.render import render, render_all, render_pair, render_task

    held_out_param = "validation_file" if job.validation_file else "training_file"
    if isinstance(job.method, Reinforcement):
        from training.methods import reinforcement

        tasks, validation = [[row for row in part if isinstance(row, Task)] for part in (rows, held_out)]
        render_all(tokenizer, tasks, limit, render_task)
        return reinforcement.train(job, job.method.grader, directory, tokenizer, tasks, validation, hyperparameters)
    if isinstance(job.method, Preference):
        from training.methods import preference as method

        both = [
            render_all(tokenizer, [row for row in part if isinstance(row, Pair)], limit, render_pair, param)
            for part, param in ((rows, "training_file"), (held_out, held_out_param))
        ]
    else:
        from training.methods import supervised as method

        both = [
            render_all(tokenizer, [row for row in part if isinstance(row, Example)], limit, render, param)
            for part, param in ((rows, "training_file"), (held_out, held_out_param))
        ]
    return method.train(job, directory, tokenizer, both[0], both[1], hyperparameters)


def _prove(
    trained: "Trained", job: TrainingJob, directory: JobDirectory, tokenizer: Any, parts: "Parts[Row]", data: DataReport
) -> Result:
    """Judge the result and write the report. If this fails, the trained model is kept without a proof."""
    from training.proof.evaluate import evaluate
    from training.proof.evaluation import Evaluation, judge
    from training.proof.report import write

    try:
        evaluation = evaluate(trained.model, tokenizer, job, parts.proof, directory.event)
    except Exception as error:
        if _no_room(error):
            raise
        traceback.print_exc()
        evaluation = Evaluation(error=f"{type(error).__name__}: {error}")
        directory.event(
            f"The proof broke off, the model is kept unproven: {type(error).__name__}: {error}", level="error"
        )
    _tell(evaluation, directory)
    verdict = judge(evaluation, job.gate)
    if not verdict.passed:
        directory.event("The gate is not passed: " + "; ".join(verdict.reasons), level="warn")
    result = trained.result.model_copy(update={"verdict": verdict})
    evaluation.summary = evaluation.headline(verdict)
    write_atomically(directory.evaluation, evaluation)
    try:
        write(directory, job, data, evaluation, result, parts)
    except Exception as error:
        if _no_room(error):
            raise
        traceback.print_exc()
        directory.event(f"The report could not be written: {type(error).__name__}: {error}", level="error")
    return result


def _tell(evaluation: "Evaluation", directory: JobDirectory) -> None:
    from training.proof.evaluation import KL_WARNING

    for comparison in (*evaluation.comparisons, *evaluation.incumbent):
        directory.event(comparison.sentence()[0].upper() + comparison.sentence()[1:], data=comparison.model_dump())
    for failure in evaluation.failures:
        directory.event(f"The grader {failure.sentence()}", level="error", data=failure.model_dump())
    for arm in evaluation.arms:
        if arm.cut:
            directory.event(
                f"{arm.cut} answers of {arm.name} {arm.model} did not end within {evaluation.max_answer_tokens} tokens "
                "or went round in circles; they are judged as far as they go"
            )
    if evaluation.forgetting is not None:
        kl = evaluation.forgetting.kl
        directory.event(evaluation.forgetting.sentence())
        directory.event(
            f"Distance from the base on general prompts: {kl:.3f} nats a token",
            level="warn" if kl > KL_WARNING else "info",
            data={"kl": kl},
        )


if __name__ == "__main__":
    sys.exit(main())
