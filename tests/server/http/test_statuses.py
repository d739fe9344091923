"""Every domain error has one place in the table, and every answer OpenAI's form."""

import inspect
import json

import pytest
from fastapi.responses import JSONResponse

import adapters.chat.template
import adapters.errors
import server.errors
import training.graders.sandbox
from adapters.errors import AdapterNotFound, InvalidAdapter
from server.errors import ContextLengthExceeded, InvalidRequest
from server.http.statuses import TABLE, event, status_and_body

BASES = (adapters.errors.AdapterError, server.errors.ServerError)
CONCRETE = [
    kind
    for module in (adapters.errors, adapters.chat.template, server.errors, training.graders.sandbox)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, Exception) and kind not in BASES and kind.__module__ == module.__name__
]


@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
def test_every_domain_error_is_in_the_table(kind: type[Exception]) -> None:
    assert kind in TABLE


@pytest.mark.parametrize("answer", TABLE.values(), ids=lambda answer: f"{answer.status}-{answer.code}")
def test_nothing_permanent_is_retried_by_the_sdk(answer: object) -> None:
    assert TABLE
    retried = {408, 409, 429, *range(500, 600)}
    transient = {
        "adapter_load_failed",
        "adapter_damaged",
        "engine_unavailable",
        "data_folder_busy",
        "rate_limit_exceeded",
    }
    assert answer.status not in retried or answer.code in transient  # pyright: ignore[reportAttributeAccessIssue]


def test_all_four_keys_are_always_there() -> None:
    assert status_and_body(AdapterNotFound("ft:x")) == (
        404,
        {
            "error": {
                "message": "The model `ft:x` does not exist or you do not have access to it.",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            }
        },
    )
    assert status_and_body(InvalidAdapter("the.tensor", "is bad"))[1]["error"]["param"] == "the.tensor"
    assert (
        status_and_body(ContextLengthExceeded("too long", "messages"))[1]["error"]["code"] == "context_length_exceeded"
    )


def test_an_unexpected_error_tells_nothing() -> None:
    status, content = status_and_body(KeyError("/secret/path"))
    assert status == 500
    assert "secret" not in json.dumps(content)


def test_an_error_in_a_stream_is_an_error_event() -> None:
    lines = event(AdapterNotFound("ft:x")).splitlines()
    assert lines[0] == "event: error"
    assert json.loads(lines[1].removeprefix("data: "))["error"]["code"] == "model_not_found"


def test_a_clients_own_words_in_an_error_are_text_and_not_megabytes() -> None:
    error = InvalidRequest("half \ud83d, \0" + "m" * 10**6, "metadata.\ud83d\0" + "k" * 10**6)
    status, content = status_and_body(error)
    JSONResponse(content)  # which is UTF-8
    assert status == 400
    assert content["error"]["message"].startswith("half \ufffd, \ufffdmmm")
    assert content["error"]["param"].startswith("metadata.\ufffd\ufffdkkk")
    assert len(json.dumps(content)) < 3000
