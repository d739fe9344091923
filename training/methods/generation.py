"""Answers of the model in training, a batch at a time: for replay, for rewards and for the proof at the end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 32


def answer_ids(
    model: Any, tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[list[int]], max_tokens: int
) -> list[list[int]]:
    """Greedy answers, each up to and with its end of turn where it comes within `max_tokens`.

    Args:
        model: a transformers causal language model.
        prompts: token ids that end with the opening of an assistant turn. Rows are batched by length.
    """
    import torch

    end = tokenizer.eos_token_id
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        inputs = tokenizer.pad(
            {"input_ids": [prompts[index] for index in batch]}, padding_side="left", return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            outputs = model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens)
        for index, output in zip(batch, outputs[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            answers[index] = output[: output.index(end) + 1] if end in output else output
    return answers


def answers(
    model: Any, tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[list[int]], max_tokens: int
) -> list[str]:
    """The same as text, without the end of turn."""
    return [
        str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
        for ids in answer_ids(model, tokenizer, prompts, max_tokens)
    ]
