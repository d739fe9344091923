"""OpenAI's published schema against ours: each valid value is answered, or refused by the table of differences."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from adapters.base import BaseModel
from tests.contract.published import PATHS, faults
from tests.contract.walk import PUBLISHED, Walk
from tests.inprocess import InProcess, in_process
from tests.scripted import ScriptedEngine

MODEL = "SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Stood:
    """A server whose jobs and batches wait, and what exists on it."""

    server: InProcess
    fixed: dict[str, tuple[Any, ...]]


@pytest.fixture(scope="module")
def stood(smollm2_base: BaseModel, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stood]:
    engine = ScriptedEngine(tokenizer=tokenizer)
    engine.answer = "Yes."
    unbounded: dict[str, Any] = dict.fromkeys(("max_waiting_jobs", "max_waiting_batches", "max_open_uploads"), 10_000)
    unbounded["judge_url"] = "http://judge:none"  # asked, it fails at once
    with in_process(smollm2_base, engine, tmp_path_factory.mktemp("stood"), **unbounded) as server:
        assert engine.loop is not None
        for waits in (server.services.queue, server.services.batch_runner):
            asyncio.run_coroutine_threadsafe(waits.stop(), engine.loop).result(20)
        client = server.openai()
        training = client.files.create(file=("rows.jsonl", b"{}"), purpose="fine-tune").id
        fixed = {
            "model": (MODEL,),
            "training_file": (training,),
            "validation_file": (training, None),
            "input_file_id": (client.files.create(file=("batch.jsonl", b"{}"), purpose="batch").id,),
            "previous_response_id": (client.responses.create(model=MODEL, input="x").id, None),
        }
        yield Stood(server, fixed)


@pytest.mark.parametrize("endpoint", [endpoint for endpoint in PATHS if endpoint != "embeddings"])
def test_every_valid_request_is_answered_or_refused_by_the_table(endpoint: str, stood: Stood) -> None:
    engine = stood.server.engine
    with stood.server.http() as http:
        found = faults(endpoint, http, stood.fixed, lambda: engine.asked[-1].sampling)
    assert not found, "\n".join(found)


def test_every_valid_form_is_a_file(stood: Stood) -> None:
    with stood.server.http() as http:
        for _, body in Walk({"file": ("",)}).values(PUBLISHED["bodies"]["files"]):
            expiry = body.get("expires_after", {})
            form = {"purpose": body["purpose"], **{f"expires_after[{name}]": value for name, value in expiry.items()}}
            answer = http.post("/v1/files", data=form, files={"file": ("rows.jsonl", b"{}")})
            assert answer.status_code == 200, (form, answer.text)
            shown = answer.json()
            assert shown["purpose"] == body["purpose"]
            assert not expiry or shown["expires_at"] == shown["created_at"] + expiry["seconds"]


def test_every_valid_permission_is_given(stood: Stood) -> None:
    path = f"/v1/fine_tuning/checkpoints/{MODEL}/permissions"
    with stood.server.http() as http:
        for _, body in Walk().values(PUBLISHED["bodies"]["permissions"]):
            answer = http.post(path, json=body)
            if body["project_ids"]:
                assert [one["project_id"] for one in answer.json()["data"]] == body["project_ids"], answer.text
            else:
                assert answer.json()["error"]["param"] == "project_ids"


@pytest.mark.parametrize("route", PUBLISHED["queries"])
def test_every_documented_query_of_a_list_is_answered(route: str, stood: Stood) -> None:
    client = stood.server.openai()
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=stood.fixed["training_file"][0])
    ids = {"fine_tuning_job_id": job.id, "response_id": stood.fixed["previous_response_id"][0]}
    path = "/v1" + route.format(**ids, fine_tuned_model_checkpoint=MODEL)
    with stood.server.http() as http:
        data = http.get(path).json()["data"]
        after = data[0]["id"] if data else None
        for name, node in PUBLISHED["queries"][route].items():
            for place, value in Walk({"after": (after,)}).values(node, name):
                query = {name: value} if not isinstance(value, dict) else {f"{place}[{k}]": v for k, v in value.items()}
                answer = http.get(path, params={key: one for key, one in query.items() if one is not None})
                assert answer.status_code == 200, (query, answer.text)
                assert answer.json()["object"] == "list"
