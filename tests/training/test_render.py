import json
from typing import Any

import pytest

from adapters.chat import template
from training.data.rows import Example, Message, Pair, parse
from training.errors import InvalidTrainingData
from training.render import IGNORED, render, render_all, render_pair, turns

CONVERSATION = Example(
    (
        Message("system", "Be brief.", False),
        Message("user", "One?", False),
        Message("assistant", "1", False),
        Message("user", "Two?", False),
        Message("assistant", "\n2 it is", True),
    ),
    line=7,
)


def test_prompt_ids_are_the_servers_and_only_the_answer_is_trained(tokenizer: Any) -> None:
    row = render(tokenizer, CONVERSATION)
    messages = [{"role": message.role, "content": message.content} for message in CONVERSATION.messages]
    prompt = template.encode(tokenizer, template.render(tokenizer, messages[:-1], generation_prompt=True))

    assert row["input_ids"][: len(prompt)] == prompt
    assert row["labels"][: len(prompt)] == [IGNORED] * len(prompt)
    assert row["labels"][len(prompt) :] == row["input_ids"][len(prompt) :]
    assert tokenizer.decode(row["input_ids"][len(prompt) :]) == "\n2 it is<|im_end|>"


def test_each_trained_turn_is_labelled(tokenizer: Any) -> None:
    turns = [Message(m.role, m.content, m.role == "assistant") for m in CONVERSATION.messages]
    row = render(tokenizer, Example(tuple(turns), 1))
    trained = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORED]
    assert tokenizer.decode(trained) == "1<|im_end|>\n2 it is<|im_end|>"


def test_over_long_rows_are_named_never_cut(tokenizer: Any) -> None:
    with pytest.raises(InvalidTrainingData, match=r"^line 7: \d+ tokens, but at most 20 fit"):
        render_all(tokenizer, [CONVERSATION], 20, render)


def test_a_template_that_leaves_the_answer_out_is_refused(tokenizer: Any) -> None:
    tokenizer = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    tokenizer.chat_template = (
        "{{ messages | length }}{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(InvalidTrainingData, match="line 7: the model's chat template leaves the answer out"):
        render_all(tokenizer, [CONVERSATION], 1000, render)


def test_an_answer_that_a_template_writes_otherwise_afterwards_is_trained_as_it_is_asked_for(tokenizer: Any) -> None:
    """DeepSeek's distilled models open an answer with a thought that no later turn shows."""
    tokenizer = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    tokenizer.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    several = Example(tuple(Message(m.role, m.content, m.role == "assistant") for m in CONVERSATION.messages), 1)
    for row, at, said in zip(render_all(tokenizer, [several], 1000, render), (2, 4), ("1", "2 it is"), strict=True):
        start = next(index for index, label in enumerate(row["labels"]) if label != IGNORED)
        prompt = template.render(tokenizer, turns(several.messages[:at]), generation_prompt=True)
        assert row["input_ids"][:start] == template.encode(tokenizer, prompt)
        assert tokenizer.decode(row["labels"][start:]) == f"{said}<|im_end|>"


def test_a_pair_shares_the_servers_prompt_ids(tokenizer: Any) -> None:
    pair = Pair(CONVERSATION.messages[:2], "1", "One, I would say", 3)
    ids = render_pair(tokenizer, pair)
    messages = [{"role": message.role, "content": message.content} for message in pair.prompt]
    prompt = template.encode(tokenizer, template.render(tokenizer, messages, generation_prompt=True))
    assert ids["prompt_ids"] == prompt
    assert tokenizer.decode(ids["chosen_ids"]) == "1<|im_end|>"
    assert tokenizer.decode(ids["rejected_ids"]) == "One, I would say<|im_end|>"


def test_a_call_is_trained_as_the_server_shows_tools_and_reads_calls(tokenizer: Any) -> None:
    tools = ({"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}},)
    call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Köln"}'}}
    messages = (
        Message("user", "Weather?"),
        Message("assistant", "", trained=True, calls=(call,)),
        Message("tool", "Rain.", call_id="c"),
        Message("assistant", "It rains.", trained=True),
    )
    row = render(tokenizer, Example(messages, 1, tools))
    trained = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORED]
    written = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln"}}\n</tool_call>'
    assert tokenizer.decode(trained) == f"{written}<|im_end|>It rains.<|im_end|>"
    served = template.render(tokenizer, turns(messages[:3]), generation_prompt=True, tools=tools)
    assert tokenizer.decode(row["input_ids"]).startswith(served)
    assert "<tools>" in served
    assert "<tool_response>" in served


def test_names_reach_the_template_as_in_serving(tokenizer: Any) -> None:
    tokenizer = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    tokenizer.chat_template = "{% for m in messages %}{{ m.name or m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    row = {"messages": [{"role": "user", "name": "Ann", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}
    example = parse(json.dumps(row), 1, "supervised")
    assert isinstance(example, Example)
    assert tokenizer.decode(render(tokenizer, example)["input_ids"]).startswith("Ann: Hi")
