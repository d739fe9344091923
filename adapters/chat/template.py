"""Chat to text to token ids: one code for training and serving, so both use the same template.

A user's text must never become one of the marks by which a model tells turns apart. So `<|im_end|>` in a message is cut
in two by `CUT` in the rendered text, and the two halves are encoded separately; the template's own marks are not cut.
Marks are the special tokens, and those other added tokens that the template writes (DeepSeek's turns, Qwen's
`<tool_call>`). The latter are not cut in assistant turns, since the model writes them too.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from functools import lru_cache
from inspect import signature
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError as JinjaError

from adapters.chat import apart, bounded
from adapters.errors import AdapterError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CUT = "\ufdd0"  # a code point that Unicode reserves for use within a program; no text holds it

# For templates without tools: the format of the Hermes models (github.com/NousResearch/Hermes-Function-Calling), which
# vLLM's parser "hermes" reads back.
PREAMBLE = (
    "You may call one or more functions to answer the user. You are given their signatures as JSON between "
    "<tools></tools>:\n<tools>\n{tools}\n</tools>\n\n"
    "For each call, return a JSON object with the function's name and its arguments between <tool_call></tool_call>:\n"
    '<tool_call>\n{{"name": "function name", "arguments": {{"argument": "value"}}}}\n</tool_call>'
)
# Variables by which templates of reasoning models turn thoughts on or off. A model learns and answers without thoughts,
# unless its own template (training/render.py) or a request says otherwise.
NO_THOUGHTS = {"enable_thinking": False, "thinking": False}
NO_TEMPLATE = (
    "this model has no chat template: it continues texts (POST /v1/completions), and knows no turns. Fine-tune it, and "
    "the result chats; or name a template, by the server's setting chat_template or in the adapter's manifest.json"
)
FAULTS = (JinjaError, *bounded.RAISED)
NO_TEXT = f"[{CUT}\ud800-\udfff]"  # half a surrogate pair can come in a call's arguments, which are JSON within JSON


class TemplateError(AdapterError, ValueError):
    """The chat template refused the conversation; the message is the template's own.

    Attributes:
        param: the request's field at fault; None: the messages.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


def render(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, Any]],
    *,
    template: str | None = None,
    generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] = (),
    more: Mapping[str, Any] | None = None,
) -> str:
    """The conversation as text with special tokens and `CUT`s; turn it into ids with `encode`.

    Args:
        tokenizer: the base model's tokenizer.
        messages: `{"role", "content"}` each, content a string; assistant turns may have OpenAI's `tool_calls`, and
            turns of the role `tool` hold results. OpenAI's `developer` role is rendered as `system`, since most open
            models' templates do not know it.
        template: Jinja source from an adapter's manifest; None: the tokenizer's own.
        generation_prompt: end with the opening of an assistant turn, as a request for an answer does.
        tools: OpenAI's `tools`. A template without tools gets them in Hermes' format, in the system turn.
        more: variables for the template, such as `enable_thinking`.

    Raises:
        TemplateError: the template raised, or there is none.
    """
    from transformers import PreTrainedTokenizerBase

    for name in more or {}:
        if name == "messages" or name in signature(PreTrainedTokenizerBase.apply_chat_template).parameters:
            raise TemplateError(f"{name!r} is no variable of a chat template's own", "chat_template_kwargs")
    turns: list[dict[str, Any]] = [
        {**message, "role": "system" if message["role"] == "developer" else message["role"]} for message in messages
    ]
    uses_tools = bool(tools) or any(turn["role"] == "tool" or turn.get("tool_calls") for turn in turns)
    try:
        if uses_tools:
            turns = [_with_arguments(turn) for turn in turns]
        if template is None and tokenizer.chat_template is None:
            raise TemplateError(NO_TEMPLATE)
        source = tokenizer.get_chat_template(template, list(tools) or None)  # pyright: ignore[reportArgumentType]
        marks, assistants = _marks(tokenizer, source)
        turns = [_cut(turn, assistants if turn["role"] == "assistant" else marks) for turn in turns]
        tools = _cut(tools, marks)
        if uses_tools and "tools" not in source:
            turns, tools = _in_hermes_form(turns, tools), ()
        run = apart.run if is_foreign(tokenizer, template) else bounded.run
        if turns and turns[0]["role"] == "system" and not _takes_system(tokenizer, source, run):
            turns = _without_system(turns)
        variables = _variables(tokenizer, turns, tools, generation_prompt)
        return run(source, variables | _cut(more or {}, marks))
    except TemplateError:
        raise
    except FAULTS as error:
        raise TemplateError(f"the model's chat template refused the messages: {error}") from error


def is_foreign(tokenizer: "PreTrainedTokenizerBase", template: str | None) -> bool:
    """Whether a template is not the tokenizer's own, which the operator trusts; such a template is rendered apart."""
    return template is not None and template != tokenizer.chat_template


def _variables(
    tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Any], tools: Sequence[Any], generation_prompt: bool
) -> dict[str, Any]:
    return {
        **tokenizer.special_tokens_map,
        "messages": turns,
        "tools": list(tools) or None,
        "documents": None,
        "add_generation_prompt": generation_prompt,
        **NO_THOUGHTS,
    }


@lru_cache(maxsize=32)
def _takes_system(tokenizer: "PreTrainedTokenizerBase", source: str, run: Callable[[str, dict[str, Any]], str]) -> bool:
    """Whether a template shows a system turn; Gemma 2's refuses one, and some ignore it."""
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it?"}]
    try:
        return asked[0]["content"] in run(source, _variables(tokenizer, asked, (), True))
    except FAULTS:
        return False


def _without_system(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with the system turn's text put before the first user turn's."""
    system, rest = turns[0]["content"], turns[1:]
    if rest and rest[0]["role"] == "user":
        return [{**rest[0], "content": f"{system}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{"role": "user", "content": system}, *rest]


@lru_cache(maxsize=64)
def _marks(tokenizer: "PreTrainedTokenizerBase", source: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns that find the first character of each mark, and characters that no tokenizer takes (group 1).

    Returns:
        The pattern for all turns but the assistant's, and the one for the assistant's.
    """
    added = [(str(token.content), token.special) for token in tokenizer.added_tokens_decoder.values()]
    special = {*(mark for mark, special in added if special), *tokenizer.all_special_tokens}
    return _firsts(special | {mark for mark, _ in added if mark.strip() and mark in source}), _firsts(special)


def _firsts(marks: Set[str]) -> re.Pattern[str]:
    """Matches a mark's first character only and looks ahead at the rest, since marks may overlap; see `_marks`."""
    rests: dict[str, list[str]] = {}
    for mark in sorted(marks):
        if len(mark) > 1:
            rests.setdefault(mark[0], []).append(re.escape(mark[1:]))
    return re.compile(
        "|".join([f"({NO_TEXT})", *(f"{re.escape(first)}(?={'|'.join(some)})" for first, some in rests.items())])
    )


def _cut(value: Any, marks: re.Pattern[str]) -> Any:
    """The value with every mark in its texts cut in two; characters that no tokenizer takes become U+FFFD."""
    if isinstance(value, str):
        return marks.sub(lambda found: "\ufffd" if found[1] else found[0] + CUT, value)
    if isinstance(value, list | tuple):
        return [_cut(one, marks) for one in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, Mapping):
        return {_cut(name, marks): _cut(one, marks) for name, one in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return value


def _with_arguments(turn: dict[str, Any]) -> dict[str, Any]:
    """The turn with its calls' arguments as objects, as templates expect; OpenAI's API has them as JSON text.

    Arguments that are not valid JSON (cut at `max_tokens`, or badly written by the model) stay text, so that a
    conversation can go on after them.
    """
    calls: list[dict[str, Any]] = []
    for call in turn.get("tool_calls") or ():
        arguments = call["function"]["arguments"]
        if isinstance(arguments, str):
            with suppress(RecursionError, ValueError):
                arguments = json.loads(arguments or "{}")
                arguments = {} if arguments is None else arguments
        calls.append({"type": "function", "function": {"name": call["function"]["name"], "arguments": arguments}})
    return {**turn, "tool_calls": calls} if calls else turn


def encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of rendered text, in which the template has already written the special tokens."""
    if CUT not in text:
        return tokenizer(text, add_special_tokens=False).input_ids
    return encode_all(tokenizer, [text])[0]


def encode_all(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each of several texts, faster than one by one."""
    lead, width = _lead(tokenizer)
    pieces = [text.replace(CUT, CUT + lead).split(CUT) for text in texts]
    encoded = iter(tokenizer([piece for some in pieces for piece in some], add_special_tokens=False).input_ids)
    return [
        [token for number, _ in enumerate(some) for token in next(encoded)[width * bool(number) :]] for some in pieces
    ]


@lru_cache(maxsize=8)
def _lead(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, int]:
    """A prefix for every piece after the first, and how many of its tokens to drop.

    SentencePiece's tokenizers (Llama 2, Mistral) add a space before a text's first word; the prefix prevents that.
    """
    line, word, both = tokenizer(["\n", "a", "\na"], add_special_tokens=False).input_ids
    return ("", 0) if line + word == both else ("\n", len(line))


def written(content: str | None, calls: Sequence[Mapping[str, Any]]) -> str:
    """An assistant's turn as text, its calls (OpenAI's `tool_calls`) in Hermes' format."""
    functions = [call["function"] for call in _with_arguments({"tool_calls": calls}).get("tool_calls", ())]
    texts = [
        "<tool_call>\n"
        + json.dumps({"name": function["name"], "arguments": function["arguments"]}, ensure_ascii=False)
        + "\n</tool_call>"
        for function in functions
    ]
    return "\n".join([*([content] if content else ()), *texts])


def _in_hermes_form(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with tools, calls and results as text in the turns' contents."""
    turns = [_written_out(message) for message in messages]
    if tools:
        preamble = PREAMBLE.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
        if turns and turns[0]["role"] == "system":
            turns[0] = {**turns[0], "content": f"{turns[0]['content']}\n\n{preamble}"}
        else:
            turns.insert(0, {"role": "system", "content": preamble})
    return turns


def _written_out(message: Mapping[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    return {"role": message["role"], "content": written(message.get("content"), message.get("tool_calls") or ())}
