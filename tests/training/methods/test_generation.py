"""Answers as transformers' own greedy search gives them, whatever the base's defaults for generation are."""

from pathlib import Path
from typing import Any

import pytest
import torch

from training.methods import generation


@pytest.fixture(scope="module")
def model(tiny: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()


PROMPTS = [[7, 8, 9, 100 + n, *range(50, 50 + n % 7)] for n in range(40)]


def reference(model: Any, prompt: list[int], tokens: int) -> list[int]:
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(tokens):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == 2:
                break
    return ids[len(prompt) :]


def test_batches_of_all_lengths_say_what_each_prompt_alone_would(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [reference(model, prompt, 8) for prompt in PROMPTS]
    assert generation.answer_ids(model, tokenizer, PROMPTS, 8) == expected
    monkeypatch.setattr(generation, "BATCH_TOKENS", 100)
    assert generation.answer_ids(model, tokenizer, PROMPTS, 8) == expected
    monkeypatch.setattr(generation, "attends_to_all", lambda _cache: False)  # nothing is shared then
    assert generation.answer_ids(model, tokenizer, PROMPTS, 8) == expected


def test_rows_that_end_leave_their_batch_and_others_go_on(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = generation.answer_ids(model, tokenizer, PROMPTS, 16)
    ends = {ids[3] for ids in plain[:20]}  # half of the rows end early
    monkeypatch.setattr(generation, "ends", lambda *_: ends)
    stopped = generation.answer_ids(model, tokenizer, PROMPTS, 16)
    stops = [next((place + 1 for place, one in enumerate(ids) if one in ends), len(ids)) for ids in plain]
    assert stopped == [ids[:stop] for ids, stop in zip(plain, stops, strict=True)]
    assert len({len(ids) for ids in stopped}) > 2


def test_the_bases_defaults_change_nothing(model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen2.5 ships a repetition penalty, which would keep a model from copying; serving ignores it."""
    before = generation.answer_ids(model, tokenizer, PROMPTS[:4], 12)
    for name, value in (("repetition_penalty", 5.0), ("no_repeat_ngram_size", 1), ("min_new_tokens", 9)):
        monkeypatch.setattr(model.generation_config, name, value)
    assert generation.answer_ids(model, tokenizer, PROMPTS[:4], 12) == before


def test_any_of_the_models_ends_is_one(model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma ends turns with another token than the tokenizer's end of text."""
    free = generation.answer_ids(model, tokenizer, PROMPTS[:1], 8)[0]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [2, free[2]])
    answer = generation.answers(model, tokenizer, PROMPTS[:1], 8)[0]
    assert generation.answer_ids(model, tokenizer, PROMPTS[:1], 8)[0] == free[: free.index(free[2]) + 1]
    assert not answer.cut


def test_what_has_no_end_is_cut_at_the_limit_or_at_the_context(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [one.cut for one in generation.answers(model, tokenizer, PROMPTS[:3], 5)] == [True] * 3
    monkeypatch.setattr(model.config, "max_position_embeddings", len(PROMPTS[0]) + 3)
    assert len(generation.answer_ids(model, tokenizer, PROMPTS[:1], 8)[0]) == 3


def test_circles_are_seen() -> None:
    assert generation._loops([1, 2, 3, *[7, 8, 9] * 20, 7])  # pyright: ignore
    assert not generation._loops(list(range(64)))  # pyright: ignore
    assert not generation._loops([7] * 63)  # pyright: ignore
