"""The fine-tuning API through the SDK, sync and async, on a tiny random model: every call a user of OpenAI's makes."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from demo import finetune
from demo.server import Server
from tests.e2e.conftest import engines

BASE = "tiny"
CITIES = [f"{a}{b}" for a in ("Bon", "Ly", "Gra", "Tu", "Por", "Ghe") for b in ("na", "on", "to", "za", "lin")]
CHAT = [
    {
        "messages": [
            {"role": "user", "content": f"Where is {city}?"},
            {"role": "assistant", "content": f"{city} is {n} km off."},
        ]
    }
    for n, city in enumerate(CITIES)
]
PAIRS = [
    {
        "input": {"messages": row["messages"][:1], "tools": [], "parallel_tool_calls": True},
        "preferred_output": row["messages"][1:],
        "non_preferred_output": [{"role": "assistant", "content": "No idea."}],
    }
    for row in CHAT
]
TASKS = [{"messages": row["messages"][:1], "city": city} for row, city in zip(CHAT, CITIES, strict=True)]
LENGTH_GRADER = {
    "type": "python",
    "name": "e's",
    "source": "def grade(s, i):\n    return s['output_text'].count('e') / max(1, len(s['output_text']))",
}
QUICK = {"n_epochs": 1, "batch_size": 10}
SHORT = {**QUICK, "max_answer_tokens": 8}


@pytest.fixture(scope="module")
def server(mistreated: Server) -> Server:
    return mistreated


@pytest.fixture(scope="module")
def client(mistreated: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=mistreated.base_url, api_key=mistreated.api_key, max_retries=0, timeout=120)


def jsonl(rows: list[Any]) -> io.BytesIO:
    return io.BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode())


def upload(client: openai.OpenAI, rows: list[Any]) -> str:
    return client.files.create(file=("rows.jsonl", jsonl(rows)), purpose="fine-tune").id


def run(client: openai.OpenAI, rows: list[Any], method: dict[str, Any], **more: Any) -> FineTuningJob:
    job = client.fine_tuning.jobs.create(
        model=more.pop("model", BASE), training_file=upload(client, rows), method=cast(Any, method), seed=1, **more
    )
    ended = finetune.follow(client, job)
    assert ended.status == "succeeded", (ended.error, client.fine_tuning.jobs.list_events(job.id).data)
    return ended


@pytest.fixture(scope="module")
def supervised(client: openai.OpenAI) -> FineTuningJob:
    grader = {"type": "string_check", "name": "names it", "input": "{{sample.output_text}}", "operation": "like"}
    method = {
        "type": "supervised",
        "supervised": {"hyperparameters": QUICK, "graders": [{**grader, "reference": "{{item.reference}}"}]},
    }
    return run(client, CHAT, method, suffix="cities", metadata={"team": "geo", "gate.alias": "ft:tiny:cities"})


def served_as_trained(client: openai.OpenAI, server: Server, tiny: Path, job: FineTuningJob) -> None:
    """The server's log-probabilities of a text are those of the weights that the trainer left."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    left = server.log.parent / "jobs" / job.id / "adapter"
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    if (left / "model.safetensors").exists():
        model: Any = AutoModelForCausalLM.from_pretrained(left, dtype=torch.float32)
    else:
        model = PeftModel.from_pretrained(base, str(left)).eval()
    ids = list(range(100, 140))
    with torch.inference_mode():
        scores = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    expected = scores.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    answer = client.completions.create(
        model=str(job.fine_tuned_model), prompt=ids, echo=True, logprobs=1, max_tokens=1, temperature=0
    )
    assert answer.choices[0].logprobs
    served = (answer.choices[0].logprobs.token_logprobs or [])[1 : len(ids)]
    assert served == pytest.approx(expected, abs=0.02)
    plain = client.completions.create(model=BASE, prompt=ids, echo=True, logprobs=1, max_tokens=1, temperature=0)
    assert plain.choices[0].logprobs
    assert (plain.choices[0].logprobs.token_logprobs or [])[1 : len(ids)] != pytest.approx(expected, abs=0.02)


def messages(client: openai.OpenAI, job: FineTuningJob) -> list[str]:
    return [event.message for event in client.fine_tuning.jobs.list_events(job.id)]


def test_a_gate_that_is_not_passed_keeps_the_model_and_the_alias(
    client: openai.OpenAI, supervised: FineTuningJob
) -> None:
    said = messages(client, supervised)
    assert any("The gate is not passed: 7 rows were judged; a verdict takes 10" in message for message in said)
    assert "ft:tiny:cities stays where it is: the gate is not passed" in said
    assert client.models.retrieve(str(supervised.fine_tuned_model)).id == supervised.fine_tuned_model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("ft:tiny:cities")


def test_reports(client: openai.OpenAI, server: Server, supervised: FineTuningJob) -> None:
    root = f"/v1/fine_tuning/jobs/{supervised.id}"
    data = server.get(f"{root}/data_report").json()
    assert data["rows"] == len(CHAT)
    assert data["tokens"]["total"] > 500
    assert "30 rows" in server.get(f"{root}/data_report?format=markdown").text
    figures = server.get(f"{root}/report?format=json").json()
    assert figures["comparisons"][0]["grader"] == "names it"
    assert figures["comparisons"][0]["n"] == 7
    assert len(figures["sides"]) == 7
    assert figures["forgetting"]["asked"] >= 60
    page = server.get(f"{root}/report")
    assert page.headers["content-type"].startswith("text/html")
    for part in (
        "<polyline",
        "Base against fine-tuned",
        "Answers side by side",
        "prefers-color-scheme: dark",
        "names it",
    ):
        assert part in page.text
    assert "<script" not in page.text
    assert "## Answers side by side" in server.get(f"{root}/report?format=markdown").text


def test_a_report_shows_hostile_text_as_text(client: openai.OpenAI, server: Server) -> None:
    evil = "<script>alert(1)</script>"
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{evil} {n}"},
                {"role": "assistant", "content": f"{evil} {n} it is"},
            ]
        }
        for n in range(12)
    ]
    job = run(client, rows, {"type": "supervised", "supervised": {"hyperparameters": QUICK}})
    page = server.get(f"/v1/fine_tuning/jobs/{job.id}/report").text
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_supervised_is_served_as_trained(
    client: openai.OpenAI, server: Server, tiny: Path, supervised: FineTuningJob
) -> None:
    served_as_trained(client, server, tiny, supervised)


def test_dpo(client: openai.OpenAI, server: Server, tiny: Path) -> None:
    job = run(client, PAIRS, {"type": "dpo", "dpo": {"hyperparameters": {**QUICK, "beta": 0.2}}})
    assert job.method
    assert job.method.type == "dpo"
    assert job.method.dpo
    assert job.method.dpo.hyperparameters
    assert job.method.dpo.hyperparameters.beta == 0.2
    assert any("prefers the preferred answer" in message.lower() for message in messages(client, job))
    served_as_trained(client, server, tiny, job)


def test_reinforcement(client: openai.OpenAI, server: Server, tiny: Path) -> None:
    hyperparameters = {**QUICK, "compute_multiplier": 0.5, "max_answer_tokens": 16, "learning_rate_multiplier": 20}
    method = {
        "type": "reinforcement",
        "reinforcement": {"grader": LENGTH_GRADER, "hyperparameters": hyperparameters},
    }
    with pytest.raises(openai.BadRequestError, match="needs a validation_file"):
        client.fine_tuning.jobs.create(model=BASE, training_file=upload(client, TASKS), method=cast(Any, method))
    job = run(client, TASKS[:20], method, validation_file=upload(client, TASKS[20:]))
    assert job.method
    assert job.method.reinforcement
    assert job.method.reinforcement.grader.type == "python"
    assert any(message.startswith("E's: base") for message in messages(client, job))
    served_as_trained(client, server, tiny, job)


def test_a_reward_without_variance_is_refused(client: openai.OpenAI) -> None:
    grader = {"type": "string_check", "name": "g", "input": "a", "reference": "b", "operation": "eq"}
    method = cast(Any, {"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": SHORT}})
    files = {"training_file": upload(client, TASKS[:20]), "validation_file": upload(client, TASKS[20:])}
    failed = finetune.follow(client, client.fine_tuning.jobs.create(model=BASE, method=method, **files))
    assert failed.status == "failed"
    assert failed.error
    assert failed.error.code == "no_reward_variance"
    assert "partial rewards" in failed.error.message


def test_full_fine_tuning_is_kept_as_an_adapter(client: openai.OpenAI, server: Server, tiny: Path) -> None:
    hyperparameters = {**QUICK, "weights": "full", "learning_rate_multiplier": 3}
    job = run(client, CHAT, {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}})
    said = next(message for message in messages(client, job) if "kept as an adapter" in message)
    assert "of rank 16: validation loss" in said
    assert client.fine_tuning.jobs.checkpoints.list(job.id).data
    served_as_trained(client, server, tiny, job)


def test_full_fine_tuning_is_served_whole_by_an_engine_of_its_own(
    client: openai.OpenAI, server: Server, tiny: Path, supervised: FineTuningJob
) -> None:
    hyperparameters = {**QUICK, "weights": "full", "keep": "model", "learning_rate_multiplier": 3}
    job = run(client, CHAT, {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}})
    served_as_trained(client, server, tiny, job)
    state = server.get(f"/admin/adapters/{job.fine_tuned_model}").json()
    assert (state["rank"], state["state"]) == (0, "ready")
    stream = client.chat.completions.create(
        model=str(job.fine_tuned_model), messages=cast(Any, CHAT[0]["messages"][:1]), stream=True, max_tokens=8
    )
    adapter = client.chat.completions.create(
        model=str(supervised.fine_tuned_model), messages=cast(Any, CHAT[0]["messages"][:1]), max_tokens=8
    )
    assert adapter.choices[0].finish_reason, "the base's engine and its adapters go on beside it"
    assert [chunk for chunk in stream if chunk.choices][-1].choices[0].finish_reason

    before, _own = engines(server)  # oldest first
    for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id).data:  # the best has the result's own weights
        client.models.delete(checkpoint.fine_tuned_model_checkpoint)
    client.models.delete(str(job.fine_tuned_model))
    until(lambda: engines(server) == [before])


def test_going_on_from_a_fine_tuned_model(client: openai.OpenAI, supervised: FineTuningJob) -> None:
    old_form = client.fine_tuning.jobs.create(
        model=str(supervised.fine_tuned_model), training_file=upload(client, CHAT), hyperparameters=cast(Any, QUICK)
    )
    further = finetune.follow(client, old_form)
    assert further.status == "succeeded", further.error
    assert further.model == supervised.fine_tuned_model
    assert str(further.fine_tuned_model).startswith("ft:tiny:personal::")
    first = client.fine_tuning.jobs.checkpoints.list(supervised.id).data[-1].metrics.full_valid_loss
    then = client.fine_tuning.jobs.checkpoints.list(further.id).data[-1].metrics.full_valid_loss
    assert first is not None
    assert then is not None
    assert then < first


def slow(client: openai.OpenAI) -> FineTuningJob:
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50, "batch_size": 1}}}
    return client.fine_tuning.jobs.create(
        model=BASE, training_file=upload(client, CHAT * 4), method=cast(Any, method), seed=1
    )


def until(condition: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_pause_and_resume(client: openai.OpenAI, server: Server) -> None:
    job = slow(client)
    queued = slow(client)
    until(lambda: client.fine_tuning.jobs.retrieve(job.id).estimated_finish)
    assert client.fine_tuning.jobs.pause(queued.id).status == "paused"
    started = time.monotonic()
    assert client.fine_tuning.jobs.pause(job.id).status == "paused"
    assert time.monotonic() - started < 5
    with pytest.raises(openai.BadRequestError, match="is paused; only a job that waits or runs"):
        client.fine_tuning.jobs.pause(job.id)
    with pytest.raises(openai.BadRequestError, match="cancel that first"):
        client.files.delete(job.training_file)
    steps = [
        event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=10).data if "Step" in event.message
    ]
    time.sleep(2)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "paused"
    assert client.fine_tuning.jobs.resume(job.id).status in ("queued", "validating_files")
    until(lambda: any("resumed after step" in message for message in messages(client, job)))
    resumed = next(message for message in messages(client, job) if "resumed after step" in message)
    assert int(resumed.rpartition(" ")[2]) + 1 >= int(steps[0].split()[1].partition("/")[0]), "saved when it was paused"
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert client.fine_tuning.jobs.cancel(queued.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="only a paused job can be resumed"):
        client.fine_tuning.jobs.resume(job.id)


def test_secrets_in_the_data_stop_a_job_unless_it_says_so(client: openai.OpenAI) -> None:
    rows = [
        *CHAT,
        {"messages": [{"role": "user", "content": "Key?"}, {"role": "assistant", "content": "ghp_" + "a1B2" * 9}]},
    ]
    create = client.fine_tuning.jobs.create
    refused = finetune.follow(client, create(model=BASE, training_file=upload(client, rows)))
    assert refused.error
    assert refused.error.code == "invalid_training_file"
    assert "hold secrets (GitHub Token)" in refused.error.message
    assert "lines 31" in refused.error.message
    quick = cast(Any, QUICK)
    accepted = create(
        model=BASE, training_file=upload(client, rows), hyperparameters=quick, metadata={"accept_findings": "true"}
    )
    assert finetune.follow(client, accepted).status == "succeeded"
