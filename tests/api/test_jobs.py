"""Fine-tuning jobs are created from everything OpenAI documents, and from what its own SDK gives back."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from adapters.base import BaseModel
from server.state.jobs import NewJob
from tests.inprocess import InProcess, in_process
from tests.scripted import ScriptedEngine
from training.graders import sandbox
from training.job import Supervised

MODEL = "SmolLM2-135M-Instruct"
GRADER = {"type": "string_check", "name": "g\0\u2028", "input": "a", "reference": "\u202eb", "operation": "eq"}


@pytest.fixture
def http(served: InProcess) -> Iterator[httpx.Client]:
    with served.http() as client:
        yield client


@pytest.fixture(scope="module")
def file_id(served: InProcess) -> str:
    return served.openai().files.create(file=("train.jsonl", b"{}"), purpose="fine-tune").id


def created(http: httpx.Client, file_id: str, **more: Any) -> dict[str, Any]:
    """A job, cancelled before it is trained, as it was created."""
    answer = http.post("/v1/fine_tuning/jobs", json={"model": MODEL, "training_file": file_id, **more})
    assert answer.status_code == 200, answer.text
    http.post(f"/v1/fine_tuning/jobs/{answer.json()['id']}/cancel")
    return answer.json()


TEXTS = ("\0", "\u2028\u2029\x85", "\u202e\u200f", "\x1b[31m\x07", "😀" * 64, "ä" * 64)


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_any_text_is_a_suffix_and_a_label(text: str, http: httpx.Client, file_id: str) -> None:
    job = created(http, file_id, suffix=text, metadata={text: text * 8, "b": None})
    shown = http.get(f"/v1/fine_tuning/jobs/{job['id']}").json()
    kept = text.replace("\0", "\ufffd")
    assert shown["metadata"] == {kept: kept * 8}
    found = http.get("/v1/fine_tuning/jobs", params={f"metadata[{text}]": text * 8}).json()["data"]
    assert [one["id"] for one in found] == [job["id"]]


@pytest.mark.parametrize("mode", ["python", "json"])
@pytest.mark.parametrize("kind", ["supervised", "dpo", "reinforcement"])
def test_a_job_as_the_sdk_dumps_it_is_a_new_one(
    kind: str, mode: Any, http: httpx.Client, client: openai.OpenAI, file_id: str
) -> None:
    more = {"grader": GRADER} if kind == "reinforcement" else {}
    method = {"type": kind, kind: {"hyperparameters": {"n_epochs": 2}, **more}}
    first = created(http, file_id, method=method, validation_file=file_id, seed=7, metadata={"a": "b"})
    dumped = client.fine_tuning.jobs.retrieve(first["id"]).model_dump(mode=mode)
    fields = (
        "model",
        "training_file",
        "validation_file",
        "seed",
        "method",
        "hyperparameters",
        "metadata",
        "integrations",
    )
    again = created(http, file_id, **{name: dumped[name] for name in fields})
    assert {name: again[name] for name in fields} == {name: first[name] for name in fields}
    assert again["method"][kind]["hyperparameters"]["n_epochs"] == 2


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n_epochs": 3}, "n_epochs"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs"),
        ({"method": {"type": "supervised", "dpo": {"hyperparameters": {"beta": 0.1}}}}, "method.dpo"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"training_file": "file-\0"}, "training_file"),
        ({"validation_file": "x" * 5_000}, "validation_file"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"model": "ft:\0\u2028"}, "model"),
    ],
)
def test_what_has_no_effect_is_refused_by_its_field(
    body: dict[str, Any], param: str, http: httpx.Client, file_id: str
) -> None:
    answer = http.post("/v1/fine_tuning/jobs", json={"model": MODEL, "training_file": file_id, **body})
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["param"] == param


def test_two_integrations_are_refused_rather_than_one_forgotten(http: httpx.Client, file_id: str) -> None:
    wandb = [{"type": "wandb", "wandb": {"project": name}} for name in ("a", "b")]
    answer = http.post("/v1/fine_tuning/jobs", json={"model": MODEL, "training_file": file_id, "integrations": wandb})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "integrations"


def test_jobs_created_at_once_get_a_number_each(http: httpx.Client, file_id: str) -> None:
    with ThreadPoolExecutor(30) as pool:
        jobs = list(pool.map(lambda n: created(http, file_id, metadata={"burst": str(n)}), range(30)))
    assert len({job["id"] for job in jobs}) == 30


@pytest.mark.parametrize(
    ("lost", "param", "message"),
    [
        ({"training_file": "file-gone"}, "training_file", "the file file-gone was deleted while the job waited"),
        ({"validation_file": "file-gone"}, "validation_file", "the file file-gone was deleted while the job waited"),
        ({"retention_file": "file-gone"}, "retention_file", "the file file-gone was deleted while the job waited"),
        ({"parent": "ft:gone"}, "model", "the model ft:gone, which the job starts from or has to beat, was removed"),
    ],
)
def test_what_went_away_while_a_job_waited_ends_it(
    lost: dict[str, Any], param: str, message: str, served: InProcess, http: httpx.Client, file_id: str
) -> None:
    job_id = f"ftjob-lost{param}"
    files = {field: file for field, file in lost.items() if field != "parent"}
    job = NewJob(**{"model": MODEL, "training_file": file_id, "seed": 0, "method": Supervised(), **files})
    served.services.jobs.create(job_id, job, lost.get("parent"), f"ft:m:o::{param}")
    served.services.queue.wake()
    until = time.monotonic() + 30
    while (ended := http.get(f"/v1/fine_tuning/jobs/{job_id}").json())["status"] != "failed":
        assert time.monotonic() < until, ended
        time.sleep(0.05)
    assert ended["error"]["code"] == f"invalid_{param}"
    assert ended["error"]["param"] == param
    assert ended["error"]["message"].startswith(message)
    events = http.get(f"/v1/fine_tuning/jobs/{job_id}/events").json()["data"]
    assert events[0]["message"].startswith(f"The job failed: {message}")


def test_a_name_that_would_be_too_long_is_the_suffixs_fault(
    smollm2_base: BaseModel, tokenizer: Any, tmp_path: Path
) -> None:
    with (
        in_process(smollm2_base, ScriptedEngine(tokenizer=tokenizer), tmp_path, organization="o" * 150) as server,
        server.http() as http,
    ):
        file = server.openai().files.create(file=("train.jsonl", b"{}"), purpose="fine-tune").id
        body = {"model": MODEL, "training_file": file, "suffix": "s" * 64}
        answer = http.post("/v1/fine_tuning/jobs", json=body)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == "suffix"


def test_only_an_admin_moves_an_alias_or_lowers_the_bar(served: InProcess, file_id: str) -> None:
    _, secret = served.services.keys.create("ann")
    body = {"model": MODEL, "training_file": file_id}
    with served.http(secret) as user, served.http() as admin:
        for key, easier, stricter in (
            ("gate.alias", "ft:prod", None),
            ("gate.min_gain", "-9", "0.1"),
            ("gate.min_score", "-1", "0.5"),
            ("gate.max_kl", "999", "0.1"),
            ("gate.max_retention_loss", "1", "0.01"),
        ):
            refused = user.post("/v1/fine_tuning/jobs", json={**body, "metadata": {key: easier}})
            assert refused.status_code == 403, key
            assert key in refused.json()["error"]["message"]
            created(admin, file_id, metadata={key: easier})
            if stricter is not None:
                created(user, file_id, metadata={key: stricter})
                nothing = user.post("/v1/fine_tuning/jobs", json={**body, "metadata": {key: "nan"}})
                assert nothing.status_code in (400, 403), "what no figure is below or above"


def test_the_servers_alias_is_moved_by_admins_jobs(smollm2_base: BaseModel, tokenizer: Any, tmp_path: Path) -> None:
    engine = ScriptedEngine(tokenizer=tokenizer)
    with in_process(smollm2_base, engine, tmp_path, gate={"alias": "ft:prod", "min_gain": 0.1}) as server:
        file = server.openai().files.create(file=("train.jsonl", b"{}"), purpose="fine-tune").id
        _, secret = server.services.keys.create("ann")
        with server.http(secret) as user, server.http() as admin:
            gates = [server.services.jobs.get(created(http, file)["id"]).gate for http in (admin, user)]
            assert [(gate["alias"], gate["min_gain"]) for gate in gates] == [("ft:prod", 0.1), (None, 0.1)]
            body = {"model": MODEL, "training_file": file, "metadata": {"gate.alias": "ft:prod"}}
            assert user.post("/v1/fine_tuning/jobs", json=body).status_code == 403


def test_a_chat_template_is_an_admins_and_a_template(served: InProcess, file_id: str) -> None:
    _, secret = served.services.keys.create("ann")
    with served.http(secret) as user, served.http() as admin:
        method = {"type": "supervised", "supervised": {"chat_template": "{{ messages }}"}}
        body = {"model": MODEL, "training_file": file_id, "method": method}
        assert user.post("/v1/fine_tuning/jobs", json=body).status_code == 403
        created(admin, file_id, method=method)
        method["supervised"] = {"chat_template": "{% for"}
        refused = admin.post("/v1/fine_tuning/jobs", json=body).json()["error"]
        assert refused["param"] == "method.supervised.chat_template"
        assert "no Jinja template" in refused["message"]


PYTHON = {"type": "python", "name": "p", "source": "def grade(sample, item): return 1"}
JUDGE = {"type": "score_model", "name": "j", "model": "m", "input": [{"role": "user", "content": "a"}]}
LABEL = {**JUDGE, "type": "label_model", "labels": ["yes", "no"], "passing_labels": ["yes"]}
BOTH = {"type": "multi", "name": "m", "graders": {"one": GRADER, "two": PYTHON}, "calculate_output": "one + two"}
LABELS = {"type": "multi", "name": "m", "graders": {"one": GRADER, "two": LABEL}, "calculate_output": "one + two"}


def test_a_label_model_judges_held_out_rows_and_is_no_reward(http: httpx.Client, file_id: str) -> None:
    body = {"model": MODEL, "training_file": file_id, "validation_file": file_id}
    method = {"type": "reinforcement", "reinforcement": {"grader": LABEL}}
    refused = http.post("/v1/fine_tuning/jobs", json={**body, "method": method}).json()["error"]
    assert refused["param"] == "method.reinforcement.grader"
    assert "part of a multi grader" in refused["message"]
    method = {"type": "supervised", "supervised": {"graders": [LABEL]}}
    refused = http.post("/v1/fine_tuning/jobs", json={**body, "method": method}).json()["error"]
    assert "JUDGE_URL" in refused["message"], "understood; only nobody is there to ask"


@pytest.mark.parametrize(
    ("grader", "told"),
    [(PYTHON, "Linux 6.12"), (BOTH, "Linux 6.12"), (JUDGE, "JUDGE_URL"), (LABELS, "JUDGE_URL")],
)
@pytest.mark.parametrize("kind", ["supervised", "reinforcement"])
def test_a_grader_that_cannot_run_here_is_refused_before_hours_are_spent(
    kind: str, grader: Any, told: str, http: httpx.Client, file_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "landlock_abi_version", lambda: 5)
    field, asked = ("graders", [grader]) if kind == "supervised" else ("grader", grader)
    method = {"type": kind, kind: {field: asked}}
    files = {"training_file": file_id, "validation_file": file_id}
    answer = http.post("/v1/fine_tuning/jobs", json={"model": MODEL, **files, "method": method})
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == f"method.{kind}.{field}"
