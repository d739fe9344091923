"""What is asked about forgetting was never rehearsed, or the figure would flatter; loss is of what the base knew."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from training.errors import InvalidTrainingData
from training.methods import replay
from training.proof import forgetting
from training.proof.forgetting import Question

EMPTY = set(
    re.findall(r"\w+", "a an are call do does for how in is many of on the there we what where which who why you")
)
REWORDED = 0.6  # of the words of the shorter: "What language is spoken in Mexico?" and "… in Brazil?"


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower())) - EMPTY


def test_no_question_about_forgetting_is_among_the_replays_prompts_even_in_other_words() -> None:
    prompts = [words(prompt) for prompt in replay.prompts()]
    assert len(set(replay.prompts())) == len(prompts) > 5_556, "a tenth of 50,000 rows and these"
    for question in forgetting.questions(None):
        mine = words(question.prompt)
        for prompt in prompts:
            shared = mine & prompt
            assert not mine <= prompt, question.prompt
            assert len(shared) < 2 or len(shared) / min(len(mine), len(prompt)) < REWORDED, (question.prompt, prompt)


def test_there_are_two_hundred_and_none_gives_its_answer_away() -> None:
    questions = forgetting.questions(None)
    assert len({question.prompt for question in questions}) == len(questions) == 200
    assert not [question.prompt for question in questions if question.answered(question.prompt)]
    assert len(forgetting.questions(None, forgetting.ON_CPU)) == forgetting.ON_CPU


@pytest.mark.parametrize(
    ("text", "right"), [("That is Ice.", True), ("nice", False), ("Office", False), ("7 days", True), ("17", False)]
)
def test_the_expected_is_a_word_of_its_own(text: str, right: bool) -> None:
    assert Question("?", ("ice", "7")).answered(text) is right


def test_words_without_spaces_between_are_found() -> None:
    assert Question("?", ("東京",)).answered("答えは東京です")


@pytest.mark.parametrize("expect", [[], [""], "", 7, None])
def test_a_question_without_an_answer_is_refused(expect: Any, tmp_path: Path) -> None:
    import json

    file = tmp_path / "f.jsonl"
    file.write_text(json.dumps({"prompt": "Hm?", "expect": expect}))
    with pytest.raises(InvalidTrainingData, match="line 1: "):
        forgetting.questions(file)


@pytest.fixture(scope="module")
def adapted(tiny: Path) -> Any:
    """The tiny model with an adapter of noise, which changes what it says."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    return get_peft_model(base, config).eval()


def test_loss_is_the_share_of_what_the_base_knew(adapted: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten questions the base knew eight; the result is asked those, and knows six: a quarter is lost, not 20 %."""
    asked: list[int] = []

    def said(model: Any, _tokenizer: Any, prompts: Any, _limit: int) -> list[list[int]]:
        asked.append(len(prompts))
        right = 8 if len(asked) == 1 else 6
        texts = ["yes" if index < right else "no" for index in range(len(prompts))]
        return [tokenizer(text, add_special_tokens=False).input_ids for text in texts]

    monkeypatch.setattr(forgetting, "answer_ids", said)
    found = forgetting.measure(adapted, tokenizer, [Question(f"{n}?", ("yes",)) for n in range(10)])
    assert asked == [10, 8]
    assert (found.asked, found.known, found.kept, found.loss) == (10, 8, 6, 0.25)
    assert found.low < 0.25 < found.high < 0.7
    assert [one.kept for one in found.answers] == [True] * 6 + [False] * 2 + [None] * 2


def test_the_divergence_is_the_same_whatever_side_the_tokenizer_pads(
    adapted: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Llama's and Gemma's tokenizers pad left; each row alone needs no padding at all."""
    rows = [([5, 6, 7], [8, 9]), ([5], [6]), ([5, 6, 7, 8, 9, 10], [11, 12, 13])]
    alone = [forgetting.divergence(adapted, tokenizer, [row]) for row in rows]
    expected = sum(kl * len(answer) for kl, (_, answer) in zip(alone, rows, strict=True)) / 6
    assert expected > 0.01
    for side in ("left", "right"):
        monkeypatch.setattr(tokenizer, "padding_side", side)
        assert forgetting.divergence(adapted, tokenizer, rows) == pytest.approx(expected, rel=1e-4)
