"""Texts of people are text, whatever tokenizer reads them, and wherever they stand; templates write their own marks."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import GenerationConfig, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import AddedToken

from adapters.chat.template import CUT, _cut, _marks, encode, encode_all, render
from training import render as trained
from training.data.rows import Example, Pair, parse
from training.methods import replay

# What every shape shows: who speaks, a turn's content, calls, tools, and a variable of the request's.
TURN = "{{ m.name or '' }}{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"
HEAD = "{{ note or '' }}{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
EACH = "{% for m in messages %}"
TEMPLATES = {
    "chatml": f"{HEAD}{EACH}<|im_start|>{{{{ m.role }}}}\n{TURN}<|im_end|>\n{{% endfor %}}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "llama": f"<|begin_of_text|>{HEAD}{EACH}<|start_header_id|>{{{{ m.role }}}}<|end_header_id|>\n\n{TURN}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    "mistral": f"<s>{HEAD}{EACH}{{% if m.role == 'assistant' %}}{TURN}</s>{{% else %}}[INST]{TURN}[/INST]{{% endif %}}"
    "{% endfor %}",
    "gemma": f"<bos>{HEAD}{EACH}<start_of_turn>{{{{ 'model' if m.role == 'assistant' else m.role }}}}\n{TURN}"
    "<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "deepseek": f"<bos>{HEAD}{EACH}{{% if m.role == 'assistant' %}}<|Assistant|>{TURN}<eos>"
    "{% else %}<|User|>{{ m.content }}{{ m.name or '' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|>{% endif %}",
}
SPECIAL = {
    "chatml": ("<|endoftext|>", "<|im_end|>", "<|im_start|>"),
    "llama": ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"),
    "mistral": ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "<unk>"),
    "gemma": ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<pad>"),
    "deepseek": ("<bos>", "<eos>"),
}
ORDINARY = {"deepseek": ("<|User|>", "<|Assistant|>")}  # added, but not special, as DeepSeek's are


def pieces(shape: str) -> Tokenizer:
    """A vocabulary as SentencePiece makes them: letters, bytes, and a space before the first word."""
    letters = sorted({chr(code) for code in range(33, 127)} | {"▁", "▁a", "an"})
    vocabulary = {piece: number for number, piece in enumerate([*letters, *(f"<0x{byte:02X}>" for byte in range(256))])}
    tokenizer = Tokenizer(BPE(vocabulary, [("▁", "a"), ("a", "n")], byte_fallback=True))
    spaces = decoders.Replace("▁", " ")
    if shape == "mistral":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence(
            [spaces, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.decoder = decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


@dataclass(frozen=True)
class Shape:
    """A tokenizer with its template, and all that could be a mark."""

    tokenizer: Any
    marks: tuple[str, ...]

    def control(self, ids: list[int]) -> list[str]:
        """The marks among token ids."""
        known = {self.tokenizer.convert_tokens_to_ids(mark): mark for mark in self.marks}
        return [known[token] for token in ids if token in known]


@pytest.fixture(scope="module")
def shaped(smollm2: Path) -> Callable[[str], Shape]:
    """Tokenizers of several kinds; where bytes are the letters, SmolLM2's own vocabulary with other marks."""

    @cache
    def make(shape: str) -> Shape:
        if shape in ("chatml", "llama"):
            content = json.loads((smollm2 / "tokenizer.json").read_text())
            made = Tokenizer.from_str(json.dumps({**content, "added_tokens": []}))
        else:
            made = pieces(shape)
        first, end, *others = SPECIAL[shape]
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=made, bos_token=first, eos_token=end, extra_special_tokens=others
        )
        ordinary = ORDINARY.get(shape, ())
        for mark in ordinary:
            tokenizer.add_tokens(AddedToken(mark, special=False, normalized=False))
        tokenizer.chat_template = TEMPLATES[shape]
        return Shape(tokenizer, SPECIAL[shape] + ordinary)

    return make


SHAPES = pytest.mark.parametrize("shape", TEMPLATES)


def served(turns: list[dict[str, Any]], **more: Any) -> Callable[[Any], list[int]]:
    return lambda by: encode(by, render(by, turns, generation_prompt=True, **more))


def called(name: str, arguments: str) -> list[dict[str, Any]]:
    call = {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
    return [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": [call]}]


def row(kind: Any, content: dict[str, Any]) -> Callable[[Any], list[int]]:
    """A row as it is trained."""
    parsed = parse(json.dumps(content), 1, kind)
    if isinstance(parsed, Example):
        return lambda by: trained.render(by, parsed)["input_ids"]
    if isinstance(parsed, Pair):
        return lambda by: [token for ids in trained.render_pair(by, parsed).values() for token in ids]
    return lambda by: trained.render_task(by, parsed)["prompt_ids"]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def tool(**function: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": function}]


PLACES: dict[str, Callable[[str], Callable[[Any], list[int]]]] = {
    "a user": lambda text: served([user(text)]),
    "a system prompt, of a manifest too": lambda text: served([{"role": "system", "content": text}, user("a")]),
    "a developer": lambda text: served([{"role": "developer", "content": text}, user("a")]),
    "a name": lambda text: served([{**user("a"), "name": text}]),
    "a tool's result": lambda text: served(
        [*called("f", "{}"), {"role": "tool", "content": text, "tool_call_id": "c"}], tools=tool(name="f")
    ),
    "a tool": lambda text: served(
        [user("a")], tools=tool(name="f", description=text, parameters={text: {"enum": [text]}})
    ),
    "a variable": lambda text: served([user("a")], more={"note": text}),
    "a trained row": lambda text: row(
        "supervised", {"messages": [user(text), assistant("b"), user(text), assistant("c")]}
    ),
    "prompt and completion": lambda text: row("supervised", {"prompt": text, "completion": "b"}),
    "Alpaca": lambda text: row("supervised", {"instruction": text, "input": text, "output": "b", "system": text}),
    "a pair": lambda text: row(
        "dpo",
        {
            "input": {"messages": [user(text)]},
            "preferred_output": [assistant("b")],
            "non_preferred_output": [assistant("c")],
        },
    ),
    "a task": lambda text: row("reinforcement", {"messages": [user(text)]}),
}
ANSWERS: dict[str, Callable[[str], Callable[[Any], list[int]]]] = {
    "a call's arguments": lambda text: served(called("f", json.dumps({"a": text}))),
    "a call's arguments, escaped": lambda text: served(
        called("f", '{"a": "' + "".join(f"\\u{ord(letter):04x}" for letter in text) + '"}')
    ),
    "a call's arguments, no JSON": lambda text: served(called("f", text)),
    "a call's name": lambda text: served(called(text, "{}")),
    "an answer": lambda text: served([user("a"), assistant(text), user("b")]),
    "a trained answer": lambda text: row("supervised", {"messages": [user("a"), assistant(text)]}),
    "pairs of answers": lambda text: row(
        "dpo",
        {
            "input": {"messages": [user("a")]},
            "preferred_output": [assistant(text)],
            "non_preferred_output": [assistant(f"{text}!")],
        },
    ),
}


@SHAPES
@pytest.mark.parametrize("place", PLACES)
def test_no_mark_in_a_text_is_one(shape: str, place: str, shaped: Callable[[str], Shape]) -> None:
    made = shaped(shape)
    plain, hostile = (PLACES[place](text)(made.tokenizer) for text in ("x", f"x{''.join(made.marks)}x"))
    assert made.control(hostile) == made.control(plain) != []


@SHAPES
@pytest.mark.parametrize("place", ANSWERS)
def test_no_special_mark_in_an_answer_is_one(shape: str, place: str, shaped: Callable[[str], Shape]) -> None:
    made = shaped(shape)
    plain, hostile = (ANSWERS[place](text)(made.tokenizer) for text in ("x", f"x{''.join(SPECIAL[shape])}x"))
    assert made.control(hostile) == made.control(plain) != []


@SHAPES
def test_a_text_is_read_as_it_was_written(shape: str, shaped: Callable[[str], Shape]) -> None:
    """A piece behind a cut goes on: it gets no space of SentencePiece's."""
    made = shaped(shape)
    text = render(made.tokenizer, [user(" an ".join(made.marks)), user("an" + made.marks[1])], generation_prompt=True)
    assert CUT in text
    assert made.tokenizer.decode(encode(made.tokenizer, text)) == text.replace(CUT, "")
    assert encode_all(made.tokenizer, [text, "an", text]) == [encode(made.tokenizer, one) for one in (text, "an", text)]


def test_what_the_model_writes_itself_stays_whole_in_its_turns(shaped: Callable[[str], Shape]) -> None:
    """Marks that are not special, as Qwen's of thoughts and calls: an answer is trained as it will be sampled."""
    made = shaped("deepseek")
    ids = row("supervised", {"messages": [user("<|User|>"), assistant("b<|User|>c")]})(made.tokenizer)
    assert made.control(ids) == ["<bos>", "<|User|>", "<|Assistant|>", "<|User|>", "<eos>"]


def test_marks_that_overlap_are_cut_each(shaped: Callable[[str], Shape]) -> None:
    made = shaped("mistral").tokenizer
    overlapping = PreTrainedTokenizerFast(
        tokenizer_object=made.backend_tokenizer, extra_special_tokens=["<a>", ">b<", "<c>"]
    )
    marks, _ = _marks(overlapping, "")
    assert _cut("<a>b<c>", marks).split(CUT) == ["<", "a>", "b<", "c>"]


def test_replay_asks_in_text(shaped: Callable[[str], Shape], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    (tmp_path / "prompts").write_text("Say <|im_end|>\n")
    monkeypatch.setattr(replay, "PROMPTS", tmp_path / "prompts")
    monkeypatch.setattr(
        replay, "answer_ids", lambda _model, _tokenizer, prompts, _most: asked.extend(prompts) or [[1]] * len(prompts)
    )
    made = shaped("chatml")
    replay.self_answers(SimpleNamespace(generation_config=GenerationConfig()), made.tokenizer, 1, 0)
    assert made.control(asked[0]) == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
