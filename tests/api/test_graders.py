"""Graders tried over HTTP: bounded, nothing dropped, and what comes back is taken again."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from adapters.base import BaseModel
from tests.inprocess import KEY, InProcess, in_process, until
from tests.scripted import ScriptedEngine

PATH = "/v1/fine_tuning/alpha/graders"
CHECK: dict[str, Any] = {
    "type": "string_check",
    "name": "g",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}


@pytest.fixture
def http(served: InProcess) -> Iterator[httpx.Client]:
    with served.http() as client:
        yield client


TEXTS = ("\0", "\u2028\u2029\x85", "\u202e\u200f", "\x1b[31m\x07", "w" * 90_000, "😀", "{}", "%s{0}")


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_any_text_is_graded(text: str, http: httpx.Client) -> None:
    grader = {**CHECK, "name": text[:256], "reference": text.replace("{}", "{ }")}
    if text != "{}":
        validated = http.post(f"{PATH}/validate", json={"grader": grader})
        assert validated.status_code == 200, validated.text
    answer = http.post(
        f"{PATH}/run", json={"grader": {**CHECK, "name": text[:256]}, "model_sample": text, "item": {"answer": text}}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["reward"] == 1
    assert answer.json()["metadata"]["name"] == text[:256].replace("\0", "\ufffd")


@pytest.mark.parametrize(
    "source",
    [
        "def grade(sample, item):\n  raise ValueError('\\ud83d' + chr(0))",
        "raise ValueError(chr(0xd83d))\ndef grade(sample, item): return 1",
    ],
    ids=["called", "loaded"],
)
def test_whatever_a_graders_code_says_is_told(source: str, http: httpx.Client) -> None:
    """Half of a character has no UTF-8: it came into the answer, and a job's events and figures, as it was."""
    grader = {"type": "python", "name": "p", "source": source}
    answer = http.post(f"{PATH}/run", json={"grader": grader, "model_sample": "x"})
    assert answer.status_code == 200, answer.text
    assert "\\ud83d" in answer.json()["metadata"]["errors"]["python_grader_runtime_error_details"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"grader": {**CHECK, "input": "{{" + " " * 2_000}}, "grader"),
        ({"grader": {**CHECK, "unknown": 1}}, "grader.unknown"),
        (
            {"grader": {"type": "multi", "name": "m", "graders": {"g": CHECK}, "calculate_output": "400000**400000"}},
            "grader",
        ),
        ({"grader": {"type": "python", "name": "p", "source": "-" * 200_000 + "1"}}, "grader"),
        ({"grader": {**CHECK, "reference": "x" * 1_000_000}}, "grader.reference"),
        ({"grader": None}, "grader"),
        ({"grader": CHECK, "model_sample": "x", "reference_answer": "y"}, "reference_answer"),
        ({"grader": CHECK, "model_sample": "x" * 200_001}, "model_sample"),
        ({"grader": CHECK, "model_sample": "x", "item": [1]}, "item"),
    ],
)
def test_what_cannot_be_a_grader_is_refused_by_its_field(body: dict[str, Any], param: str, http: httpx.Client) -> None:
    started = time.monotonic()
    answer = http.post(f"{PATH}/{'run' if 'model_sample' in body else 'validate'}", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert len(answer.text) < 1_500
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ('"range": [0, 1e999]', "grader.range.1"),
        ('"range": [-1e999, 1]', "grader.range.0"),
        ('"sampling_params": {"temperature": 1e999}', "grader.sampling_params.temperature"),
    ],
)
def test_a_number_that_no_answer_could_say_back_is_refused(change: str, param: str, http: httpx.Client) -> None:
    judge = '"type": "score_model", "name": "g", "model": "m", "input": [{"role": "user", "content": "x"}]'
    answer = http.post(f"{PATH}/validate", content=f'{{"grader": {{{judge}, {change}}}}}')
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


@pytest.mark.parametrize("depth", [400, 900, 960, 990, 1_000, 100_000])
@pytest.mark.parametrize("kind", ["string_check", "python"])
def test_deep_json_is_a_fault_or_refused(kind: str, depth: int, http: httpx.Client) -> None:
    deep = f"{'[' * depth}{']' * depth}"
    grader = CHECK if kind == "string_check" else {"type": "python", "name": "p", "source": "def grade(s, i): return 0"}
    body = f'{{"grader": {json.dumps(grader)}, "model_sample": "{deep}", "item": {{"answer": [{deep}]}}}}'
    answer = http.post(f"{PATH}/run", content=body)
    assert answer.status_code in (200, 400), answer.text
    if depth == 400:
        assert answer.json()["reward"] == 0


LABEL: dict[str, Any] = {
    "type": "label_model",
    "name": "l",
    "model": "m",
    "input": [{"role": "user", "content": "a"}],
    "labels": ["good", "bad"],
    "passing_labels": ["good"],
}
GRADERS: list[dict[str, Any]] = [
    CHECK,
    {"type": "text_similarity", "name": "s", "input": "a", "reference": "b", "evaluation_metric": "rouge_l"},
    {"type": "python", "name": "p", "source": "def grade(sample, item): return 1"},
    {"type": "score_model", "name": "j", "model": "m", "input": [{"role": "user", "content": "a"}]},
    {"type": "multi", "name": "m", "graders": {"one": CHECK}, "calculate_output": "one"},
    {"type": "multi", "name": "m", "graders": LABEL, "calculate_output": "l"},
]


@pytest.mark.parametrize("call", ["validate", "run"])
def test_a_label_model_alone_is_refused_with_what_to_send(call: str, http: httpx.Client) -> None:
    """As OpenAI's types have it, it is a part of a multi grader here."""
    body = {"grader": LABEL, **({"model_sample": "x"} if call == "run" else {})}
    answer = http.post(f"{PATH}/{call}", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "grader"), answer.text
    assert '"type": "multi"' in answer.json()["error"]["message"]


@pytest.mark.parametrize("grader", GRADERS, ids=lambda grader: grader["type"])
@pytest.mark.parametrize("mode", ["python", "json"])
def test_what_validate_answers_is_valid(grader: Any, mode: Any, client: openai.OpenAI) -> None:
    answered = client.fine_tuning.alpha.graders.validate(grader=grader).grader
    assert answered is not None
    dumped: Any = answered.model_dump(mode=mode)
    again = client.fine_tuning.alpha.graders.validate(grader=dumped).grader
    assert again == answered


def test_hanging_graders_leave_room_for_everything_else(http: httpx.Client, served: InProcess) -> None:
    """Four run at a time, two of a key; more are asked to come back, and the rest of the server does not notice."""
    hangs = {"type": "python", "name": "p", "source": "def grade(sample, item):\n  while True: pass"}
    statuses: list[int] = []

    other = http.post("/admin/keys", json={"name": "other"}).json()["secret"]

    def run(key: str = KEY) -> None:
        with served.http(key) as own:
            statuses.append(own.post(f"{PATH}/run", json={"grader": hangs, "model_sample": "x"}).status_code)

    threads = [threading.Thread(target=run, args=(key,)) for key in (KEY, KEY, other, other)]
    for thread in threads:
        thread.start()
    while served.services.graders.available_tokens:
        time.sleep(0.01)
    third = http.post("/admin/keys", json={"name": "third"}).json()["secret"]
    for key in (KEY, other, third, third) * 2:
        run(key)
    assert statuses == [429] * 8
    assert http.get("/health").status_code == 200
    assert http.get("/v1/models").status_code == 200
    assert served.services.graders.available_tokens == 0, "all that while they hung"
    for thread in threads:
        thread.join()
    assert statuses == [429] * 8 + [200] * 4


def test_graders_that_load_for_long_keep_no_other_job_waiting(
    smollm2_base: BaseModel, tokenizer: Any, tmp_path: Path
) -> None:
    slow = {"type": "python", "name": "p", "source": "import time\ntime.sleep(2)\ndef grade(s, i): return 1"}
    with in_process(smollm2_base, ScriptedEngine(tokenizer=tokenizer), tmp_path) as server, server.http() as http:
        file = server.openai().files.create(file=("train.jsonl", b"{}"), purpose="fine-tune").id
        body = {"model": smollm2_base.name, "training_file": file}
        method = {"type": "supervised", "supervised": {"graders": [slow]}}
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(http.post, "/v1/fine_tuning/jobs", json={**body, "method": method})
            until(lambda: server.services.graders.borrowed_tokens == 1)
            assert http.post("/v1/fine_tuning/jobs", json=body).status_code == 200
            assert not loading.done()
            assert loading.result().status_code == 200
