"""Every field of OpenAI's SDK and published schema is used by the wire types, or stands in the table of differences."""

import collections.abc
import types
from typing import Annotated, Any, NotRequired, Required, Union, get_args, get_origin, get_type_hints

import pydantic
import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params
from typing_extensions import is_typeddict

from server.errors import Unsupported
from server.openai import differences
from server.openai.batches import BatchRequest
from server.openai.chat.wire import ChatRequest
from server.openai.completions import CompletionRequest
from server.openai.differences import ENDPOINTS, Narrower, Refused
from server.openai.embeddings import EmbeddingRequest
from server.openai.fine_tuning.graders import RunRequest, ValidateRequest
from server.openai.fine_tuning.requests import JobRequest
from server.openai.responses.wire import ResponseRequest
from server.openai.uploads import UploadRequest
from tests.contract.walk import PUBLISHED, above, places
from training.job import Preference, Reinforcement, Supervised, SupervisedHyperparameters

OURS: dict[str, dict[str, type[pydantic.BaseModel]]] = {  # by the place where they are
    "chat": {"": ChatRequest},
    "completions": {"": CompletionRequest},
    "responses": {"": ResponseRequest},
    "embeddings": {"": EmbeddingRequest},
    "uploads": {"": UploadRequest},
    "batches": {"": BatchRequest},
    "jobs": {
        "": JobRequest,
        "hyperparameters": SupervisedHyperparameters,
        "method.supervised": Supervised,
        "method.dpo": Preference,
        "method.reinforcement": Reinforcement,
    },
    "graders_run": {"": RunRequest},
    "graders_validate": {"": ValidateRequest},
}
ONE_GRADER = "graders"  # the schema has one grader there, the guide and our types a dict of them
OPENAIS: dict[str, tuple[Any, ...]] = {
    "chat": (chat_params.CompletionCreateParamsNonStreaming, chat_params.CompletionCreateParamsStreaming),
    "completions": (completion_create_params.CompletionCreateParamsNonStreaming,),
    "responses": (
        response_create_params.ResponseCreateParamsNonStreaming,
        response_create_params.ResponseCreateParamsStreaming,
    ),
    "embeddings": (embedding_create_params.EmbeddingCreateParams,),
}
LISTS = (list, collections.abc.Iterable, collections.abc.Sequence)


def fields(kind: Any, path: str = "", seen: tuple[Any, ...] = ()) -> set[str]:
    """Every field under a type, such as `tools[].function.name`; of a TypedDict's or a pydantic model's."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Required, NotRequired, Annotated):
        return fields(arguments[0], path, seen)
    if origin in (Union, types.UnionType):
        return set().union(*(fields(branch, path, seen) for branch in arguments))
    if origin in LISTS or getattr(origin, "__name__", "") == "SequenceNotStr":
        return fields(arguments[0], f"{path}[]", seen)
    if kind in seen:
        return set()
    hints: dict[str, Any] = {}
    if is_typeddict(kind):
        hints = get_type_hints(kind)
    elif isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        hints = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    found: set[str] = set()
    for name, hint in hints.items():
        at = f"{path}.{name}" if path else name
        found |= {at} | fields(hint, at, (*seen, kind))
    return found


def ours(endpoint: str) -> set[str]:
    """Every field that our types have."""
    return set().union(*(fields(kind, place) for place, kind in OURS[endpoint].items()))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_no_field_of_the_published_schema_is_lost_silently(endpoint: str) -> None:
    used, (_, table) = ours(endpoint), ENDPOINTS[endpoint]
    theirs = places(PUBLISHED["bodies"][endpoint])
    assert len(theirs) >= 5
    lost = [path for path in theirs if path not in used and not any(one in table for one in above(path))]
    assert [path for path in lost if f".{ONE_GRADER}." not in path] == []


@pytest.mark.parametrize("endpoint", OPENAIS)
def test_no_field_of_openais_is_lost_silently(endpoint: str) -> None:
    used, (_, table) = ours(endpoint), ENDPOINTS[endpoint]
    theirs = set().union(*(fields(kind) for kind in OPENAIS[endpoint]))
    assert len(theirs) >= {"chat": 130, "completions": 20, "responses": 500, "embeddings": 5}[endpoint]
    lost = [path for path in theirs if path not in used and not any(one in table for one in above(path))]
    assert lost == [], "name them in server/openai/differences.py, or use them"
    gone = [path for path in table if path not in theirs and not path.endswith("[]") and path != "tools[].async"]
    assert [path for path in gone if path != "input[].async"] == [], "OpenAI has these no longer"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_what_is_refused_is_not_used_and_says_why(endpoint: str) -> None:
    table, used = ENDPOINTS[endpoint][1], ours(endpoint)
    for path, entry in table.items():
        assert entry.why.endswith(".")
        assert not isinstance(entry, Refused) or path not in used
        assert isinstance(entry, Refused | Narrower | differences.Taken)


def test_a_field_deep_within_is_refused_with_its_place() -> None:
    body = {"tools": [{}, {"defer_loading": False}, {"defer_loading": True}], "input": "x"}
    with pytest.raises(Unsupported) as raised:
        differences.refuse("responses", body)
    assert raised.value.param == "tools.2.defer_loading"
    assert "shown every function" in str(raised.value)


@pytest.mark.parametrize("endpoint", differences.ELSEWHERE)
def test_a_field_of_another_text_endpoint_is_refused_at_this_one(endpoint: str) -> None:
    known = {*ours(endpoint), *ENDPOINTS[endpoint][1]}
    for other in differences.ELSEWHERE:
        theirs = set().union(ours(other), *(fields(kind) for kind in OPENAIS[other]))
        for name in theirs - known:
            if "." in name or "[" in name or isinstance(ENDPOINTS[other][1].get(name), differences.Taken):
                continue
            with pytest.raises(Unsupported) as raised:
                differences.refuse(endpoint, {name: {"nobody": "knows"}})
            assert raised.value.param == name


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_harmless_values_and_null_are_taken(endpoint: str) -> None:
    tables = {**ENDPOINTS[endpoint][1], **differences.VLLM, **differences.ELSEWHERE.get(endpoint, {})}
    for path, entry in tables.items():
        if isinstance(entry, Refused):
            assert entry.takes(None)
            assert all(entry.takes(value) for value in entry.harmless), path
            assert not entry.takes("nobody knows this")
