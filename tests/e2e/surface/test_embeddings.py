"""Embeddings from the packaged model, through the openai SDK."""

import base64
import struct

import openai
import pytest

from tests.contract.published import faults
from tests.e2e.conftest import Running

MODEL = "all-MiniLM-L6-v2"


def test_near_texts_have_near_vectors_in_both_encodings(client: openai.OpenAI, running: Running) -> None:
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again."]
    answer = client.embeddings.create(model=MODEL, input=texts)
    cat, kitten, rates = (entry.embedding for entry in answer.data)
    assert len(cat) == 384
    assert sum(x * x for x in cat) == pytest.approx(1, abs=1e-4)

    def near(one: list[float], other: list[float]) -> float:
        return sum(x * y for x, y in zip(one, other, strict=True))

    assert near(cat, kitten) > 0.5 > 0.2 > near(cat, rates)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 15
    with running.http() as http:
        body = {"model": MODEL, "input": texts[0], "encoding_format": "base64"}
        encoded = http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    assert struct.unpack("<384f", base64.b64decode(encoded)) == pytest.approx(cat, abs=1e-6)


def test_every_valid_request_is_answered_or_refused_by_the_table(running: Running) -> None:
    with running.http() as http:
        found = faults("embeddings", http, {"model": (MODEL,)})
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"dimensions": 100}, "dimensions"),
        ({"input": [1, 2, 3]}, "input"),
        ({"input": "word " * 300}, "input"),
        ({"input": []}, "input"),
    ],
)
def test_what_cannot_be_done_is_refused(change: dict[str, object], param: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(**{"model": MODEL, "input": "x", **change})  # pyright: ignore
    assert raised.value.param == param


def test_a_model_of_another_kind_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="SmolLM2-135M-Instruct", input="x")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}])
    assert client.models.retrieve(MODEL).id == MODEL


def test_moderations_are_refused_honestly(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no moderation model"):
        client.moderations.create(input="x")
