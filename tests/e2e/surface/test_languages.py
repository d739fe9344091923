"""Texts in every writing, and what an adapter's manifest brings: whole characters in chunks, stops across chunks."""

import json
from typing import Any

import openai
import pytest

from adapters.base import BaseModel
from demo import base
from tests.conftest import MakeAdapter
from tests.e2e.conftest import Running

TEXTS = ("Grüße aus Köln, straße!", "你好，世界。今天天气很好", "🙂👩‍👩‍👧‍👦🏴󠁧󠁢󠁳󠁣󠁴󠁿 done", "नमस्ते दुनिया", "שלום עולם, مرحبا")


def forced(client: openai.OpenAI, text: str, **more: Any) -> list[str]:
    """The pieces of an answer that the grammar forces the model to give."""
    stream = client.chat.completions.create(
        model=base.NAME,
        messages=[{"role": "user", "content": "Say it."}],
        temperature=0,
        max_tokens=200,
        stream=True,
        extra_body={"structured_outputs": {"choice": [text]}},
        **more,
    )
    return [chunk.choices[0].delta.content for chunk in stream if chunk.choices and chunk.choices[0].delta.content]


@pytest.mark.parametrize("text", TEXTS)
def test_no_chunk_breaks_a_character(text: str, client: openai.OpenAI) -> None:
    pieces = forced(client, text)
    assert "".join(pieces) == text
    assert len(pieces) > 3
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_said_to_the_model_arrives_whole(text: str, running: Running, tokenizer: Any) -> None:
    body = {"model": base.NAME, "max_tokens": 1, "messages": [{"role": "user", "content": text}]}
    for encoded in (json.dumps(body), json.dumps(body, ensure_ascii=False)):
        with running.http() as http:
            answer = http.post("/v1/chat/completions", content=encoded.encode())
        rendered = tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=False)
        assert answer.json()["usage"]["prompt_tokens"] == len(rendered)


@pytest.mark.parametrize(("stop", "left"), [("a bet", "alph"), ("beta gam", "alpha "), ("ß!", "alpha beta gamma Stra")])
def test_a_stop_string_across_tokens_ends_the_text_before_it(stop: str, left: str, client: openai.OpenAI) -> None:
    assert "".join(forced(client, "alpha beta gamma Straß! more", stop=[stop])) == left


def test_the_manifests_template_system_prompt_and_sampling_are_applied(
    running: Running, client: openai.OpenAI, smollm2_base: BaseModel, make_adapter: MakeAdapter, tokenizer: Any
) -> None:
    folder = make_adapter(smollm2_base, seed=900, scale=0.001)
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"
    manifest = {
        "chat_template": template,
        "system_prompt": "Speak as a sailor.",
        "sampling": {"temperature": 0, "max_completion_tokens": 3},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    name = "ft:SmolLM2-135M-Instruct:test:manifest:1"
    running.register(name, folder)
    asked: Any = {"model": name, "messages": [{"role": "user", "content": "Ahoy"}]}
    answers = [client.chat.completions.create(**asked) for _ in range(3)]
    prompt = "[system] Speak as a sailor.\n[user] Ahoy\n[assistant]"
    for answer in answers:
        assert answer.usage
        assert answer.usage.prompt_tokens == len(tokenizer(prompt, add_special_tokens=False).input_ids)
        assert answer.usage.completion_tokens <= 3
    assert len({answer.choices[0].message.content for answer in answers}) == 1, "greedy by its own default"
    own = [{"role": "system", "content": "x"}, *asked["messages"]]
    longer = client.chat.completions.create(model=name, messages=own, max_tokens=5)
    assert longer.usage
    assert longer.usage.completion_tokens > 3, "the request's own limit wins"
    shorter = len(tokenizer("[system] x\n[user] Ahoy\n[assistant]", add_special_tokens=False).input_ids)
    assert longer.usage.prompt_tokens == shorter, "and its own system message"
    client.models.delete(name)
