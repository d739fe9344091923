"""`python -m training JOB.json`: run one job to its outcome, or go on where a killed run stopped.

Exit status 0: succeeded; 1: failed, and `failure.json` says why; anything else: killed, run it again.
"""

import os
import sys
import traceback
from pathlib import Path

from training import data, defaults
from training.errors import TrainingError
from training.job import Failure, JobDirectory, Result, TrainingJob
from training.render import render_all

QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> int:
    """Entry point."""
    if len(sys.argv) != 2:
        print("usage: python -m training JOB.json", file=sys.stderr)
        return 2
    os.environ.update(QUIET)
    description = Path(sys.argv[1])
    directory = JobDirectory(description.absolute().parent)
    with directory.running():
        outcome = directory.outcome() or _outcome(directory)
    return 0 if isinstance(outcome, Result) else 1


def _outcome(directory: JobDirectory) -> Result | Failure:
    try:
        result: Result | Failure = run(directory.job(), directory)
    except TrainingError as error:
        result = Failure(code=error.code, message=str(error), param=error.param)
    except Exception as error:  # noqa: BLE001 (the process border: the traceback is logged, the job fails)
        traceback.print_exc()
        result = Failure(code="server_error", message=f"the trainer broke off: {type(error).__name__}: {error}")
    directory.finish(result)
    return result


def run(job: TrainingJob, directory: JobDirectory) -> Result:
    """Check the data, then train; imports of seconds wait until the data are known to be good."""
    directory.event("Validating training file")
    examples = data.read(job.training_file)
    validation = data.read(job.validation_file, "validation_file", min_rows=1) if job.validation_file else None

    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(job.base_path)
    tokenizer = AutoTokenizer.from_pretrained(job.base_path)
    if validation is None:
        examples, validation = data.hold_out(examples, job.seed)
        directory.event(f"No validation file: {len(validation)} of the training file's rows are held out")
    limit = config.max_position_embeddings
    rows = render_all(tokenizer, examples, limit)
    held_out = render_all(tokenizer, validation, limit, "validation_file" if job.validation_file else "training_file")
    hyperparameters = defaults.resolve(job.hyperparameters, rows=len(rows), hidden_size=config.hidden_size)
    directory.event(
        f"Files validated: {len(rows)} rows to train on ({sum(len(row['input_ids']) for row in rows)} tokens), "
        f"{len(held_out)} to validate; {hyperparameters.n_epochs} epochs, batch size {hyperparameters.batch_size}, "
        f"learning rate {hyperparameters.learning_rate:.2g}",
        data={"hyperparameters": hyperparameters.as_hyperparameters().model_dump()},
    )

    from training import supervised

    return supervised.train(job, directory, tokenizer, rows, held_out, hyperparameters)


if __name__ == "__main__":
    sys.exit(main())
