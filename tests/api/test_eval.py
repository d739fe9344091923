"""`tuneport eval` against running servers: two models of one, another's, and what stops it on the way."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from adapters.base import BaseModel
from server.cli import app
from server.cli.evaluation import answers
from server.cli.evaluation.answers import Endpoint, Kept, ask
from server.errors import EngineUnavailable, InvalidRequest
from server.inference.engine import LATER
from tests.inprocess import InProcess, in_process
from tests.scripted import ScriptedEngine
from training.data.reading import read

MODEL = "SmolLM2-135M-Instruct"
ROWS = 20


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "held_out.jsonl"
    rows = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Paris."}] for n in range(ROWS)]
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return file


@pytest.fixture
def here(smollm2_base: BaseModel, tokenizer: Any, tmp_path: Path) -> Iterator[InProcess]:
    with in_process(smollm2_base, ScriptedEngine(tokenizer=tokenizer), tmp_path / "here") as server:
        yield server


def evaluated(server: InProcess, data: Path, *more: str) -> tuple[int, str]:
    url = server.base_url.removesuffix("/v1")
    ended = CliRunner().invoke(
        app, ["eval", MODEL, str(data), "--url", url, "--key", server.api_key, "--json", *more], env={"COLUMNS": "500"}
    )
    return ended.exit_code, ended.output


def test_another_endpoints_model_is_compared_and_live_traffic_goes_first(
    here: InProcess, data: Path, smollm2_base: BaseModel, tokenizer: Any, tmp_path: Path
) -> None:
    here.engine.answer = "Paris."
    with in_process(smollm2_base, ScriptedEngine(tokenizer=tokenizer), tmp_path / "there") as there:
        there.engine.answer = "London."
        status, printed = evaluated(
            *(here, data, "--against", MODEL, "--against-url", there.base_url, "--against-key", there.api_key),
            *("--max-tokens", str(len(tokenizer("Paris.").input_ids))),
        )
        assert {asked.sampling.priority for asked in there.engine.asked} == {0}
    assert status == 0, printed
    exact = next(one for one in json.loads(printed)["comparisons"] if one["grader"] == "exact match")
    assert (exact["base"], exact["tuned"], exact["n"]) == (0, 1, ROWS)
    assert {asked.sampling.priority for asked in here.engine.asked} == {LATER}


def test_a_run_that_was_stopped_goes_on(here: InProcess, data: Path, tmp_path: Path) -> None:
    kept = tmp_path / "answers.jsonl"
    generate = here.engine.generate

    def until_ten(*arguments: Any) -> Any:
        if len(here.engine.asked) == 10:
            raise InvalidRequest("no more")
        return generate(*arguments)

    here.engine.generate = until_ten  # pyright: ignore[reportAttributeAccessIssue]
    status, printed = evaluated(here, data, "--answers", str(kept))
    assert status == 1
    assert "no more" in printed
    there = len(kept.read_text().splitlines())
    assert 0 < there <= 10
    here.engine.generate = generate  # pyright: ignore[reportAttributeAccessIssue]
    kept.write_text(kept.read_text()[:-9])  # a crash cut the last one
    here.engine.asked.clear()
    status, printed = evaluated(here, data, "--answers", str(kept))
    assert status == 0, printed
    assert len(here.engine.asked) == ROWS - there + 1, "both models are the base, whose answers are there"
    here.engine.asked.clear()
    assert evaluated(here, data, "--answers", str(kept)) == (status, printed)
    assert not here.engine.asked


def test_two_runs_do_not_write_into_one_file(here: InProcess, data: Path, tmp_path: Path) -> None:
    kept = tmp_path / "answers.jsonl"
    with Kept(kept):
        status, printed = evaluated(here, data, "--answers", str(kept))
    assert status == 1
    assert f"another run keeps its answers in {kept}" in printed


def test_a_busy_server_is_asked_again(
    smollm2_base: BaseModel, tokenizer: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ScriptedEngine(tokenizer=tokenizer)
    engine.refusal = EngineUnavailable("it starts again")
    waits: list[float] = []

    def wait(state: Any) -> float:
        waits.append(said(state))
        engine.refusal = None
        return 0.0

    said = answers._wait
    monkeypatch.setattr(answers, "_wait", wait)
    with in_process(smollm2_base, engine, tmp_path / "busy", max_concurrent_requests=30) as server:
        status, printed = evaluated(server, data)
    assert status == 0, printed
    assert set(waits) == {1.0}, "as the server says"


@pytest.mark.anyio
async def test_what_an_endpoint_does_not_take_is_said_otherwise(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenAI's reasoning models refuse it."""
    taken: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        for name in ("max_tokens", "temperature"):
            if name in body:
                return httpx.Response(400, json={"error": {"message": f"Unsupported: {name}", "param": name}})
        taken.append(body)
        return httpx.Response(200, json={"choices": [{"message": {"content": "Paris."}}]})

    client = httpx.AsyncClient(base_url="http://there", transport=httpx.MockTransport(answer))
    monkeypatch.setattr(Endpoint, "client", lambda _: client)
    rows = read(data, "supervised", "data", min_rows=1)[:1]
    with Kept(None) as kept:
        assert await ask(Endpoint("http://there", "", ours=False), "o1", rows, 64, kept, lambda: None) == ["Paris."]
    assert taken[0]["max_completion_tokens"] == 64
    assert "temperature" not in taken[0]


@pytest.mark.parametrize("tier", ["flex", "auto", None])
def test_answers_say_their_tier(tier: Any, here: InProcess) -> None:
    client = here.openai()
    expected, priority = ("flex", LATER) if tier == "flex" else ("default", 0)
    asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "service_tier": tier}
    assert client.chat.completions.create(**asked).service_tier == expected
    assert {one.service_tier for one in client.chat.completions.create(**asked, stream=True)} == {expected}
    assert client.responses.create(model=MODEL, input="Hi", service_tier=tier).service_tier == expected
    assert {one.sampling.priority for one in here.engine.asked} == {priority}
