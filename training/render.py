"""Chat to token ids and labels, with the template that is served: the loss counts assistant tokens only."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from adapters.chat import template
from training.data.messages import Message
from training.data.reading import fail_on
from training.data.rows import Example, Pair, Row, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # PyTorch's ignore_index of the cross-entropy

Ids = dict[str, list[int]]
AnyRow = TypeVar("AnyRow", bound=Row)


def turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as OpenAI's chat has them."""
    return [
        {
            "role": message.role,
            "content": message.content,
            **({"name": message.name} if message.name else {}),
            **({"tool_calls": list(message.calls)} if message.calls else {}),
            **({"tool_call_id": message.call_id} if message.call_id else {}),
        }
        for message in messages
    ]


def tools(row: Row) -> tuple[dict[str, Any], ...]:
    """What may be called in a row."""
    return row.tools if isinstance(row, Example) else ()


def prompt_ids(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[int]:
    """Token ids of a conversation that the assistant is to answer, as the server makes them."""
    return template.encode(tokenizer, template.render(tokenizer, messages, generation_prompt=True, tools=tools))


def render(tokenizer: "PreTrainedTokenizerBase", example: Example) -> Ids:
    """Token ids of an example and its labels.

    Each piece up to an assistant's answer is tokenised as the server tokenises a prompt, and the answer by itself, so
    that training sees the very ids that serving will. Labels end with the end-of-turn token.

    Returns:
        `input_ids` and `labels`, of equal length; labels are `IGNORED` outside the trained answers.

    Raises:
        ValueError: the template rewrites earlier turns when later ones follow.
    """
    messages = turns(example.messages)
    ids: list[int] = []
    labels: list[int] = []
    done = ""
    for index, message in enumerate(example.messages):
        if not message.trained:
            continue
        prompt = template.render(tokenizer, messages[:index], generation_prompt=True, tools=example.tools)
        whole = template.render(tokenizer, messages[: index + 1], generation_prompt=False, tools=example.tools)
        if not prompt.startswith(done) or not whole.startswith(prompt):
            raise ValueError(
                "the model's chat template rewrites earlier turns; give each answer to be trained a line of its own"
            )
        context = template.encode(tokenizer, prompt.removeprefix(done))
        turn = template.encode(tokenizer, whole.removeprefix(prompt))
        answer = _until_end_of_turn(tokenizer, turn)
        rest = turn[len(answer) :]
        ids += context + answer + rest
        labels += [IGNORED] * len(context) + answer + [IGNORED] * len(rest)
        done = whole
    trained = max(index for index, label in enumerate(labels) if label != IGNORED) + 1
    return {"input_ids": ids[:trained], "labels": labels[:trained]}


def render_pair(tokenizer: "PreTrainedTokenizerBase", pair: Pair) -> Ids:
    """Token ids of the prompt and of both answers, each with its end-of-turn token: TRL's columns.

    Returns:
        `prompt_ids`, `chosen_ids`, `rejected_ids`.
    """
    rows = [
        render(tokenizer, Example((*pair.prompt, Message("assistant", answer, trained=True)), pair.line))
        for answer in (pair.answer, pair.rejected)
    ]
    start = next(index for index, label in enumerate(rows[0]["labels"]) if label != IGNORED)
    chosen, rejected = (row["input_ids"][start:] for row in rows)
    return {"prompt_ids": rows[0]["input_ids"][:start], "chosen_ids": chosen, "rejected_ids": rejected}


def render_task(tokenizer: "PreTrainedTokenizerBase", task: Task) -> Ids:
    """Token ids of the prompt: `prompt_ids`."""
    return {"prompt_ids": prompt_ids(tokenizer, turns(task.prompt))}


def render_all(
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[AnyRow],
    max_tokens: int,
    by: "Callable[[PreTrainedTokenizerBase, AnyRow], Ids]",
    param: str = "training_file",
) -> list[Ids]:
    """Render rows; nothing is ever cut.

    Raises:
        InvalidTrainingData: lists the lines of more than `max_tokens` tokens, and those the template refuses.
    """
    rendered: list[Ids] = []
    problems: list[str] = []
    for row in rows:
        try:
            ids = by(tokenizer, row)
        except ValueError as error:
            problems.append(f"line {row.line}: {error}")
            continue
        if (tokens := _longest(ids)) > max_tokens:
            problems.append(f"line {row.line}: {tokens} tokens, but at most {max_tokens} fit; split it")
        rendered.append(ids)
    fail_on(problems, param)
    return rendered


def _longest(ids: Ids) -> int:
    if "input_ids" in ids:
        return len(ids["input_ids"])
    answers = (len(ids.get(name, ())) for name in ("chosen_ids", "rejected_ids"))
    return len(ids["prompt_ids"]) + max(answers)


def _until_end_of_turn(tokenizer: "PreTrainedTokenizerBase", answer: list[int]) -> list[int]:
    end = tokenizer.eos_token_id
    return answer[: len(answer) - answer[::-1].index(end)] if end in answer else answer
