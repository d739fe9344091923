"""Start a fine-tuning job with OpenAI's SDK and follow it to its end, as a user who comes from OpenAI would."""

import io
import time
from collections.abc import Callable, Sequence
from typing import Any

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from demo.tasks import Row
from server.state.status import ENDED

HYPERPARAMETERS = {"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 3}
TRAINING_ROWS = 176
POLL_SECONDS = 0.5
SEED = 1


def start(client: OpenAI, base: str, suffix: str, rows: Sequence[Row], **hyperparameters: Any) -> FineTuningJob:
    """Upload the rows as JSONL and create the job."""
    content = "".join(row.jsonl() + "\n" for row in rows).encode()
    file = client.files.create(file=(f"{suffix}.jsonl", io.BytesIO(content)), purpose="fine-tune")
    wanted: Any = {**HYPERPARAMETERS, **hyperparameters}
    return client.fine_tuning.jobs.create(
        model=base,
        training_file=file.id,
        suffix=suffix,
        seed=SEED,
        method={"type": "supervised", "supervised": {"hyperparameters": wanted}},
    )


def follow(
    client: OpenAI, job: FineTuningJob, on_event: Callable[[FineTuningJobEvent], object] = lambda event: None
) -> FineTuningJob:
    """Wait for the job's end, and call `on_event` once with each event, in order; return the job."""
    seen: set[str] = set()
    while True:
        ended = client.fine_tuning.jobs.retrieve(job.id)
        for event in reversed(client.fine_tuning.jobs.list_events(job.id, limit=100).data):
            if event.id not in seen:
                seen.add(event.id)
                on_event(event)
        if ended.status in ENDED:
            return ended
        time.sleep(POLL_SECONDS)
