"""A job through the openai SDK on the real model: the main job, and every way it may end."""

import io
import time

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from demo import base, finetune
from demo.evaluation import score
from demo.tasks import TICKETS
from tests.e2e.conftest import Running

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


def test_the_job_succeeds_and_says_all_that_openais_says(job: FineTuningJob, client: openai.OpenAI) -> None:
    assert job.status == "succeeded", job.error
    assert str(job.fine_tuned_model).startswith("ft:SmolLM2-135M-Instruct:personal:tickets-v1:")
    assert job.trained_tokens
    assert job.trained_tokens > 5_000
    assert job.finished_at
    assert job.finished_at >= job.created_at
    assert job.hyperparameters.n_epochs == 1
    assert job.seed == finetune.SEED
    assert job.id in [one.id for one in client.fine_tuning.jobs.list()]
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=10))
    assert events[0].message == "The job has successfully completed"
    assert events[-1].message == "Validating training file"
    losses = [dict(event.data)["train_loss"] for event in events if event.data and "train_loss" in dict(event.data)]  # pyright: ignore
    assert losses[0] < losses[-1] / 5, "newest first, and it fell"
    assert len({event.id for event in events}) == len(events)
    table = client.files.content(job.result_files[0]).text.splitlines()
    assert table[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert len(table) == len(losses) + 1


@pytest.mark.anyio
async def test_the_tuned_model_beats_its_base_and_forgets_nothing(job: FineTuningJob, running: Running) -> None:
    async with openai.AsyncOpenAI(base_url=running.server.base_url, api_key=running.server.api_key) as client:
        _, test = TICKETS.rows(finetune.TRAINING_ROWS, 40)
        assert (await score(client, base.NAME, test)).share <= 0.1
        assert (await score(client, str(job.fine_tuned_model), test)).share >= 0.8
        answer = await client.chat.completions.create(model=str(job.fine_tuned_model), messages=FRANCE, temperature=0)  # pyright: ignore
        assert "Paris" in str(answer.choices[0].message.content)
        assert "{" not in str(answer.choices[0].message.content)


def test_checkpoints_can_be_called(job: FineTuningJob, client: openai.OpenAI) -> None:
    checkpoint = client.fine_tuning.jobs.checkpoints.list(job.id).data[0]
    assert checkpoint.fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-{checkpoint.step_number}"
    assert checkpoint.metrics.full_valid_loss is not None
    answer = client.chat.completions.create(
        model=checkpoint.fine_tuned_model_checkpoint,
        messages=[{"role": "user", "content": "Hello"}],
        max_tokens=3,
    )
    assert answer.choices[0].message.content is not None


def test_a_bad_file_fails_with_line_numbers(client: openai.OpenAI) -> None:
    file = client.files.create(file=("bad.jsonl", io.BytesIO(b'{"messages": []}\n{oops\n')), purpose="fine-tune")
    failed = finetune.follow(client, client.fine_tuning.jobs.create(model=base.NAME, training_file=file.id))
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "invalid_training_file"
    assert failed.error.param == "training_file"
    assert failed.error.message.startswith('line 1: "messages" is empty\nline 2: not JSON')
    assert failed.fine_tuned_model is None


@pytest.fixture
def long_job(client: openai.OpenAI) -> FineTuningJob:
    train, _ = TICKETS.rows(40, 1)
    return finetune.start(client, base.NAME, "long", train, n_epochs=50)


def test_cancel_stops_the_trainer_and_frees_its_file(client: openai.OpenAI, long_job: FineTuningJob) -> None:
    deadline = time.monotonic() + 90
    while not any("loss" in event.message for event in client.fine_tuning.jobs.list_events(long_job.id)):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    with pytest.raises(openai.BadRequestError, match="cancel that first"):
        client.files.delete(long_job.training_file)
    started = time.monotonic()
    assert client.fine_tuning.jobs.cancel(long_job.id).status == "cancelled"
    assert time.monotonic() - started < 5
    assert client.files.delete(long_job.training_file).deleted
    with pytest.raises(openai.BadRequestError, match="already ended"):
        client.fine_tuning.jobs.cancel(long_job.id)
    assert client.fine_tuning.jobs.retrieve(long_job.id).status == "cancelled"
