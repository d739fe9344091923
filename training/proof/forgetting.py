"""Measures catastrophic forgetting: questions that only the base answers, and the KL on the base's own answers.

The built-in questions are in `retention.jsonl`; a job may add its own. None is a replay prompt or a rewording of one.
The result is only asked what the base knew, since nothing else can be forgotten.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from training.data.jsonl import NotJsonLines, lines, load
from training.data.reading import fail_on
from training.methods.generation import answer_ids, text
from training.proof.evaluation import Forgetting, Recall
from training.proof.statistics import share_interval
from training.render import prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUILT_IN = Path(__file__).with_name("retention.jsonl")
MAX_ANSWER_TOKENS = 24
ON_CPU = 60  # built-in questions on a CPU: all 200 would double the time of the proof on two cores
MAX_KL_QUESTIONS = 16  # about 350 tokens of answers
_BATCH = 8


Text = Annotated[str, Field(strict=True, pattern=r"\S")]


@dataclass(frozen=True)
class Question:
    """A question; its answer must contain one of `expect` as whole words, in any case."""

    prompt: Text
    expect: Annotated[tuple[Text, ...], Field(min_length=1)]

    def answered(self, text: str) -> bool:
        """Whether the text answers the question; "nice" does not contain "ice"."""
        return any(
            re.search(rf"(?<![a-z0-9]){re.escape(one.casefold())}(?![a-z0-9])", text.casefold()) for one in self.expect
        )


def questions(extra: Path | None, built_in: int | None = None) -> list[Question]:
    """The built-in questions, or only the first `built_in` of them, and those of the user's file.

    Raises:
        InvalidTrainingData: lists the file's faulty lines.
    """
    problems: list[str] = []
    found = _read(BUILT_IN, problems)[:built_in] + (_read(extra, problems) if extra else [])
    fail_on(problems, "retention_file")
    return found


def _read(path: Path, problems: list[str]) -> list[Question]:
    """A file's questions; faulty lines are added to `problems`."""
    found: list[Question] = []
    try:
        for number, line in lines(path):
            try:
                found.append(_question(load(line)))
            except ValueError as error:
                problems.append(f"line {number}: {error}")
    except NotJsonLines as error:
        problems.append(str(error))
    return found


def _question(row: Any) -> Question:
    try:
        return TypeAdapter(Question).validate_python(
            {"prompt": row["prompt"], "expect": row["expect"] if isinstance(row["expect"], list) else [row["expect"]]}
        )
    except (ValidationError, KeyError, TypeError) as error:
        raise ValueError(
            'expected {"prompt": "...", "expect": "..."}; expect may be a list of which one must stand in the answer'
        ) from error


def measure(model: Any, tokenizer: "PreTrainedTokenizerBase", asked: Sequence[Question]) -> Forgetting:
    """Ask the base all questions, and the result those that the base knew.

    Args:
        model: a PEFT model; with its adapter turned off it is the base.
    """
    prompts = [prompt_ids(tokenizer, [{"role": "user", "content": one.prompt}]) for one in asked]
    with model.disable_adapter():
        base = answer_ids(model, tokenizer, prompts, MAX_ANSWER_TOKENS)
    recalls = [
        Recall(prompt=one.prompt, expect=" / ".join(one.expect), base=said, knew=one.answered(said))
        for one, said in zip(asked, (text(tokenizer, ids) for ids in base), strict=True)
    ]
    known = [index for index, one in enumerate(recalls) if one.knew]
    tuned = answer_ids(model, tokenizer, [prompts[index] for index in known], MAX_ANSWER_TOKENS)
    for index, ids in zip(known, tuned, strict=True):
        said = text(tokenizer, ids)
        recalls[index].tuned, recalls[index].kept = said, asked[index].answered(said)
    lost = sum(recalls[index].kept is False for index in known)
    low, high = share_interval(lost, len(known))
    return Forgetting(
        kl=divergence(model, tokenizer, list(zip(prompts, base, strict=True))[:MAX_KL_QUESTIONS]),
        asked=len(asked),
        known=len(known),
        kept=len(known) - lost,
        loss=lost / max(1, len(known)),
        low=low,
        high=high,
        answers=recalls,
    )


def divergence(model: Any, tokenizer: "PreTrainedTokenizerBase", rows: Sequence[tuple[list[int], list[int]]]) -> float:
    """KL(base || tuned) in nats, averaged over the answers' tokens.

    Args:
        rows: token ids of prompts and of the base's answers to them.
    """
    import torch

    total, tokens = 0.0, 0
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        inputs = tokenizer.pad(
            {"input_ids": [[*prompt, *answer] for prompt, answer in batch]}, padding_side="right", return_tensors="pt"
        )
        first = min(len(prompt) for prompt, _ in batch) - 1  # the position that predicts the first answer
        answered = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)  # the positions that predict an answer
        for index, (prompt, answer) in enumerate(batch):
            answered[index, len(prompt) - 1 : len(prompt) + len(answer) - 1] = True
        inputs, answered = inputs.to(model.device), answered[:, first:].to(model.device)

        def likelihoods(inputs: Any = inputs, answered: Any = answered) -> Any:
            # Use the model's own head, since some models scale or cap their logits there.
            logits = model(**inputs, use_cache=False, logits_to_keep=answered.shape[1]).logits
            return logits[answered].float().log_softmax(-1)

        with torch.inference_mode():
            tuned = likelihoods()
            with model.disable_adapter():
                base = likelihoods()
        total += (base.exp() * (base - tuned)).sum().item()
        tokens += len(base)
    return total / max(1, tokens)
