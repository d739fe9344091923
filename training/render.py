"""Chat to token ids and labels, with the template that is served: the loss counts assistant tokens only."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapters import template
from training.data import Example, fail_on

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # PyTorch's ignore_index of the cross-entropy

Row = dict[str, list[int]]


def render(tokenizer: "PreTrainedTokenizerBase", example: Example) -> Row:
    """Token ids of an example and its labels.

    Each piece up to an assistant's answer is tokenised as the server tokenises a prompt, and the answer by itself, so
    that training sees the very ids that serving will. Labels end with the end-of-turn token.

    Returns:
        `input_ids` and `labels`, of equal length; labels are `IGNORED` outside the trained answers.

    Raises:
        ValueError: the template rewrites earlier turns when later ones follow.
    """
    messages = [{"role": message.role, "content": message.content} for message in example.messages]
    ids: list[int] = []
    labels: list[int] = []
    done = ""
    for index, message in enumerate(example.messages):
        if not message.trained:
            continue
        prompt = template.render(tokenizer, messages[:index], generation_prompt=True)
        whole = template.render(tokenizer, messages[: index + 1], generation_prompt=False)
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


def render_all(
    tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example], max_tokens: int, param: str = "training_file"
) -> list[Row]:
    """Render examples; nothing is ever cut.

    Raises:
        InvalidTrainingData: lists the lines of more than `max_tokens` tokens, and those the template refuses.
    """
    rows: list[Row] = []
    problems: list[str] = []
    for example in examples:
        try:
            row = render(tokenizer, example)
        except ValueError as error:
            problems.append(f"line {example.line}: {error}")
            continue
        if len(row["input_ids"]) > max_tokens:
            problems.append(
                f"line {example.line}: {len(row['input_ids'])} tokens, but at most {max_tokens} fit; split it"
            )
        rows.append(row)
    fail_on(problems, param)
    return rows


def _until_end_of_turn(tokenizer: "PreTrainedTokenizerBase", answer: list[int]) -> list[int]:
    end = tokenizer.eos_token_id
    return answer[: len(answer) - answer[::-1].index(end)] if end in answer else answer
