"""Chat to token ids and labels, with the same template as in serving; the loss counts assistant tokens only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from adapters.chat import ending, plain, template
from adapters.manifest import Manifest
from training.data.messages import Message
from training.data.reading import fail_on
from training.data.rows import Example, Pair, Row, Task
from training.errors import TrainingError
from training.job import TrainingJob

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THOUGHT = "</think>"  # ends an answer's thoughts in the templates of Qwen3, DeepSeek and SmolLM3
THINKS = "{%- set enable_thinking, thinking = true, true -%}"  # put before the template of a model that thinks
IGNORED = -100  # PyTorch's ignore_index of the cross-entropy

Ids = dict[str, list[int]]
AnyRow = TypeVar("AnyRow", bound=Row)


def load_tokenizer(job: TrainingJob, rows: Sequence[Row], tell: Callable[[str], object]) -> "PreTrainedTokenizerBase":
    """The base's tokenizer, with the template for training and for serving the result.

    Thoughts are turned off in the template, unless the rows' answers have them.

    Args:
        rows: all rows that train or choose the checkpoint.
        tell: called with a message if the template is not the base's own.
    """
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(job.base_path)
    if tokenizer.pad_token is None:  # Llama 3.1's and Mistral's have none, and batches need padding
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"  # Gemma's is left, which makes positions depend on the batch
    inherited = Manifest.read(job.parent).chat_template if job.parent else None
    if job.method.chat_template is not None:
        tokenizer.chat_template = plain.begun(tokenizer, job.method.chat_template)
    elif source := inherited or job.chat_template:
        tokenizer.chat_template = source
    elif tokenizer.chat_template is None:
        tokenizer.chat_template = plain.begun(tokenizer, plain.TEMPLATE)
        tell(
            "The base has no chat template; it is trained with a plain one, which travels with the result: roles are "
            "headings, and an answer ends with the tokenizer's end of text. Name another by the method's chat_template"
        )
    if thinking(tokenizer.get_chat_template()):
        if any(THOUGHT in answer for row in rows for answer in _answers(row)):
            tokenizer.chat_template = THINKS + tokenizer.get_chat_template().removeprefix(THINKS)
        tell(f"Thinking: {thinking(tokenizer.get_chat_template())}")
    return tokenizer


def thinking(source: str) -> str | None:
    """A text that says whether a model answers with thoughts; None if its template has no thoughts."""
    if source.startswith(THINKS):
        return "on, for the rows' answers have thoughts"
    return "off, in training, serving and proof" if any(name in source for name in template.NO_THOUGHTS) else None


def _answers(row: Row) -> list[str]:
    if isinstance(row, Example):
        return [message.content for message in row.messages if message.trained]
    return [row.answer, row.rejected] if isinstance(row, Pair) else []


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
    """The tools of a row."""
    return row.tools if isinstance(row, Example) else ()


def prompt_ids(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[int]:
    """Token ids of a conversation that the assistant shall answer, the same as the server's."""
    return template.encode(tokenizer, template.render(tokenizer, messages, generation_prompt=True, tools=tools))


class AnswersApart(TrainingError, ValueError):
    """The template changes an answer when others follow it, or ends no answer; so each answer needs its own row."""


def render(tokenizer: "PreTrainedTokenizerBase", example: Example) -> Ids:
    """Token ids of an example and its labels.

    Each piece up to an assistant's answer is tokenised as the server tokenises a prompt, and the answer separately, so
    that training uses the same ids as serving. Labels end with the token that ends the turn.

    Returns:
        `input_ids` and `labels`, of equal length; labels are `IGNORED` outside the trained answers.

    Raises:
        AnswersApart: several trained answers cannot be in one row.
        ValueError: the template's output does not contain the answer.
    """
    messages = turns(example.messages)
    several = sum(message.trained for message in example.messages) > 1
    ids: list[int] = []
    labels: list[int] = []
    done = ""
    for index, message in enumerate(example.messages):
        if not message.trained:
            continue
        prompt = template.render(tokenizer, messages[:index], generation_prompt=True, tools=example.tools)
        whole = template.render(tokenizer, messages[: index + 1], generation_prompt=False, tools=example.tools)
        if several and not (prompt.startswith(done) and whole.startswith(prompt)):
            raise AnswersApart
        context = template.encode(tokenizer, prompt.removeprefix(done))
        turn = template.encode(tokenizer, _behind(prompt, whole, message))
        answer = _until_end_of_turn(tokenizer, turn)
        if answer is None:
            if several:
                raise AnswersApart
            answer = turn = [*template.encode(tokenizer, _behind(prompt, whole, message).rstrip()), _end(tokenizer)]
        rest = turn[len(answer) :]
        ids += context + answer + rest
        labels += [IGNORED] * len(context) + answer + [IGNORED] * len(rest)
        done = whole
    trained = max(index for index, label in enumerate(labels) if label != IGNORED) + 1
    return {"input_ids": ids[:trained], "labels": labels[:trained]}


def apart(example: Example) -> list[Example]:
    """A separate example for each trained answer, with the turns before it."""
    return [
        replace(example, messages=(*(replace(one, trained=False) for one in example.messages[:index]), message))
        for index, message in enumerate(example.messages)
        if message.trained
    ]


def render_pair(tokenizer: "PreTrainedTokenizerBase", pair: Pair) -> Ids:
    """Token ids of the prompt and of both answers with their end-of-turn tokens, in TRL's columns.

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
    """Render rows; nothing is ever cut off. An example becomes several rows if its answers cannot be in one.

    Raises:
        InvalidTrainingData: lists lines with more than `max_tokens` tokens, and those that the template refuses.
    """
    rendered: list[Ids] = []
    problems: list[str] = []
    for row in rows:
        try:
            found = _each(tokenizer, row, by)
        except ValueError as error:
            problems.append(f"line {row.line}: {error}")
            continue
        if (tokens := max(map(_longest, found))) > max_tokens:
            problems.append(f"line {row.line}: {tokens} tokens, but at most {max_tokens} fit; split it")
        rendered += found
    fail_on(problems, param)
    return rendered


def _each(
    tokenizer: "PreTrainedTokenizerBase", row: AnyRow, by: "Callable[[PreTrainedTokenizerBase, AnyRow], Ids]"
) -> list[Ids]:
    try:
        return [by(tokenizer, row)]
    except AnswersApart:
        assert isinstance(row, Example)  # noqa: S101 (narrows the type)
        return [render(tokenizer, one) for one in apart(row)]


def _longest(ids: Ids) -> int:
    if "input_ids" in ids:
        return len(ids["input_ids"])
    answers = (len(ids.get(name, ())) for name in ("chosen_ids", "rejected_ids"))
    return len(ids["prompt_ids"]) + max(answers)


def _behind(prompt: str, whole: str, message: Message) -> str:
    """The assistant's turn after the prompt.

    Some templates begin a new answer with an empty thought, which they leave out of finished turns. Then the model has
    to learn the answer's own text, and what the template writes after it.
    """
    if whole.startswith(prompt):
        return whole.removeprefix(prompt)
    content = message.text.strip()
    _, found, end = whole.rpartition(content)
    if not content or not found or message.calls:
        raise ValueError("the model's chat template leaves the answer out, or writes it otherwise than it is asked for")
    return content + end


def _until_end_of_turn(tokenizer: "PreTrainedTokenizerBase", turn: list[int]) -> list[int] | None:
    """The turn up to and with the token that ends it; None if the template writes none."""
    for end in (ending.of_turn(tokenizer), tokenizer.eos_token_id):
        if end in turn:
            return turn[: len(turn) - turn[::-1].index(end)]
    return None


def _end(tokenizer: "PreTrainedTokenizerBase") -> int:
    end: Any = tokenizer.eos_token_id
    if end is None:
        raise ValueError("neither chat template nor tokenizer has a token that ends an answer; name another template")
    return end
