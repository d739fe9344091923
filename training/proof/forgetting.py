"""Catastrophic forgetting, measured: the retention set before and after, and the KL to the base on its own answers.

The built-in questions stand in `retention.jsonl`; a job may add its own. None of them is among the replay's prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data.jsonl import NotJsonLines, lines, load
from training.data.reading import fail_on
from training.methods.generation import answer_ids
from training.proof.evaluation import Forgetting, Side
from training.proof.statistics import compare
from training.render import prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUILT_IN = Path(__file__).with_name("retention.jsonl")
MAX_ANSWER_TOKENS = 24
_BATCH = 8


@dataclass(frozen=True)
class Question:
    """`expect` must stand in the answer, whatever its case."""

    prompt: str
    expect: str


def questions(extra: Path | None) -> list[Question]:
    """The built-in questions, and those of the user's file.

    Raises:
        InvalidTrainingData: lists the file's faulty lines.
    """
    found: list[Question] = []
    problems: list[str] = []
    for path in (BUILT_IN, *([extra] if extra else [])):
        try:
            for number, text in lines(path):
                try:
                    found.append(_question(load(text)))
                except ValueError as error:
                    problems.append(f"line {number}: {error}")
        except NotJsonLines as error:
            problems.append(str(error))
    fail_on(problems, "retention_file")
    return found


def _question(row: Any) -> Question:
    prompt, expect = (row.get("prompt"), row.get("expect")) if isinstance(row, dict) else (None, None)
    if not isinstance(prompt, str) or not isinstance(expect, str) or not prompt.strip():
        raise ValueError('expected {"prompt": "...", "expect": "..."}')
    return Question(prompt, expect)


def measure(model: Any, tokenizer: "PreTrainedTokenizerBase", asked: Sequence[Question]) -> Forgetting:
    """Ask both models.

    Args:
        model: a PEFT model; with its adapter off it is the base.
    """
    prompts = [prompt_ids(tokenizer, [{"role": "user", "content": one.prompt}]) for one in asked]
    with model.disable_adapter():
        base = answer_ids(model, tokenizer, prompts, MAX_ANSWER_TOKENS)
    tuned = answer_ids(model, tokenizer, prompts, MAX_ANSWER_TOKENS)
    texts = [
        [str(tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in answers] for answers in (base, tuned)
    ]
    scores = [
        [float(one.expect.casefold() in text.casefold()) for one, text in zip(asked, answers, strict=True)]
        for answers in texts
    ]
    sides = [
        Side(prompt=one.prompt, reference=one.expect, base=b, tuned=t, base_score=before, tuned_score=after)
        for one, b, t, before, after in zip(asked, texts[0], texts[1], scores[0], scores[1], strict=True)
    ]
    kl = divergence(model, tokenizer, list(zip(prompts, base, strict=True)))
    return Forgetting(kl=kl, retention=compare("general questions", scores[0], scores[1]), answers=sides)


def divergence(model: Any, tokenizer: "PreTrainedTokenizerBase", rows: Sequence[tuple[list[int], list[int]]]) -> float:
    """KL(base || tuned) in nats, averaged over the answers' tokens.

    Args:
        rows: token ids of prompts and of the base's answers to them.
    """
    import torch

    total, tokens = 0.0, 0
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        inputs = tokenizer.pad({"input_ids": [[*prompt, *answer] for prompt, answer in batch]}, return_tensors="pt")
        answered = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)  # the positions that predict an answer
        for index, (prompt, answer) in enumerate(batch):
            answered[index, len(prompt) - 1 : len(prompt) + len(answer) - 1] = True
        inputs = inputs.to(model.device)

        def likelihoods(inputs: Any = inputs, answered: Any = answered) -> Any:
            causal_lm = model.get_base_model()
            hidden = causal_lm.model(**inputs, use_cache=False).last_hidden_state[answered.to(model.device)]
            return causal_lm.get_output_embeddings()(hidden).float().log_softmax(-1)

        with torch.inference_mode():
            tuned = likelihoods()
            with model.disable_adapter():
                base = likelihoods()
        total += (base.exp() * (base - tuned)).sum().item()
        tokens += len(base)
    return total / max(1, tokens)
