"""Chat with bases of other families: what ends an answer, and a base that knows no turns."""

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from adapters.base import BaseModel
from adapters.chat import plain
from adapters.manifest import Manifest
from tests.conftest import MakeAdapter
from tests.families import FAMILIES, QWEN3, save, tokenizer_of
from tests.inprocess import in_process
from tests.scripted import ScriptedEngine

QUESTION: Any = [{"role": "user", "content": "Is it?"}]
NAME = "ft:base:org::1"


def test_an_answer_ends_where_its_template_and_its_base_say(tmp_path: Path, make_adapter: MakeAdapter) -> None:
    folder = save(FAMILIES["phi"], tmp_path / "base")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 10**6]}))
    base, tokenizer = BaseModel.read(folder), tokenizer_of(FAMILIES["phi"])
    end, eos, user = tokenizer.convert_tokens_to_ids(["<|end|>", "<|endoftext|>", "<|user|>"])
    adapter = make_adapter(base, modules=("o_proj",))
    template = "{% for m in messages %}{{ m.content }}<|user|>{% endfor %}"
    Manifest(chat_template=template, stop_token_ids=[9]).write(adapter)
    engine = ScriptedEngine(tokenizer=tokenizer)
    with in_process(base, engine, tmp_path / "data") as server, server.openai() as client:
        assert server.register(NAME, adapter).status_code == 200
        for model, ends in ((base.name, {7, end, eos}), (NAME, {7, 9, user, eos})):
            client.chat.completions.create(model=model, messages=QUESTION, max_tokens=2)
            client.responses.create(model=model, input="Is it?", max_output_tokens=16)
            assert [set(asked.sampling.ends) for asked in engine.asked[-2:]] == [ends, ends]
            client.completions.create(model=model, prompt="It is", max_tokens=2)
            assert engine.asked[-1].sampling.ends == ()


def test_a_base_without_a_template_completes_and_says_how_it_is_made_to_chat(
    tmp_path: Path, make_adapter: MakeAdapter
) -> None:
    base, tokenizer = BaseModel.read(save(FAMILIES["neox"], tmp_path / "base")), tokenizer_of(FAMILIES["neox"])
    adapter = make_adapter(base, modules=("dense_4h_to_h",))
    Manifest(chat_template=plain.TEMPLATE).write(adapter)
    engine = ScriptedEngine(tokenizer=tokenizer)
    with in_process(base, engine, tmp_path / "data") as server, server.openai() as client:
        assert client.completions.create(model=base.name, prompt="It is", max_tokens=2).choices[0].text
        with pytest.raises(openai.BadRequestError, match="has no chat template: it continues texts"):
            client.chat.completions.create(model=base.name, messages=QUESTION)
        server.register(NAME, adapter)
        client.chat.completions.create(model=NAME, messages=QUESTION, max_tokens=2)
        assert tokenizer.decode(engine.asked[-1].prompt) == "### User:\nIs it?\n\n### Assistant:\n"
        assert engine.asked[-1].sampling.ends == (tokenizer.eos_token_id,)


def test_the_servers_template_stands_for_the_bases(tmp_path: Path, make_adapter: MakeAdapter) -> None:
    folder, tokenizer = save(FAMILIES["neox"], tmp_path / "base"), tokenizer_of(FAMILIES["neox"])
    base = BaseModel.read(folder, chat_template="{% for m in messages %}Q: {{ m.content }} A:{% endfor %}")
    engine = ScriptedEngine(tokenizer=tokenizer)
    with in_process(base, engine, tmp_path / "data") as server, server.openai() as client:
        server.register(NAME, make_adapter(base, modules=("dense_4h_to_h",)))
        for model in (base.name, NAME):
            client.chat.completions.create(model=model, messages=QUESTION, max_tokens=2)
            assert tokenizer.decode(engine.asked[-1].prompt) == "Q: Is it? A:"


def test_thoughts_are_off_unless_they_are_asked_for(tmp_path: Path) -> None:
    base, tokenizer = BaseModel.read(save(FAMILIES["qwen3"], tmp_path / "base")), tokenizer_of(FAMILIES["qwen3"])
    assert "enable_thinking" in QWEN3
    engine = ScriptedEngine(tokenizer=tokenizer)
    with in_process(base, engine, tmp_path / "data") as server, server.openai() as client:
        for more, end in (({}, "<think>\n\n</think>\n\n"), ({"enable_thinking": True}, "<|im_start|>assistant\n")):
            extra: Any = {"chat_template_kwargs": more}
            client.chat.completions.create(model=base.name, messages=QUESTION, max_tokens=2, extra_body=extra)
            assert tokenizer.decode(engine.asked[-1].prompt).endswith(end)
