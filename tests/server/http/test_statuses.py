"""Every domain error has one place in the table, and every answer OpenAI's form."""

import ast
import inspect
import json
from importlib import import_module
from typing import Any

import pytest
from fastapi.responses import JSONResponse

from adapters.errors import AdapterError, AdapterNotFound, InvalidAdapter
from server.errors import ContextLengthExceeded, InvalidRequest, ServerError
from server.http.statuses import TABLE, event, status_and_body
from tests.conftest import ROOT
from training.errors import TrainingError

BASES: dict[str, type[Exception]] = {"adapters": AdapterError, "server": ServerError, "training": TrainingError}
# Somebody went, or asked to stop; and the command line's own, which asks a server
NO_FAULTS = {"ClientGone", "Interrupted", "NoAnswer"}
ANSWERED = ("adapters.", "server.", "training.graders.sandbox")  # what else training raises is caught, or ends a job


def defining(package: str) -> list[str]:
    """Modules with an exception of their own, found without importing all."""
    found: list[str] = []
    for file in sorted(ROOT.glob(f"{package}/**/*.py")):
        classes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ClassDef)]
        bases = [ast.unparse(base) for node in classes for base in node.bases]
        if any(base.endswith(("Error", "Exception")) for base in bases):
            found.append(".".join(file.relative_to(ROOT).with_suffix("").parts))
    return found


KINDS: list[Any] = [
    kind
    for module in (one for package in BASES for one in defining(package))
    for name, kind in inspect.getmembers(import_module(module), inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__ == module and name not in NO_FAULTS
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_its_packages_base_and_place_in_the_table(kind: type[Exception]) -> None:
    base = BASES[kind.__module__.partition(".")[0]]
    assert issubclass(kind, base)
    assert kind in TABLE or kind is base or not kind.__module__.startswith(ANSWERED)


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
