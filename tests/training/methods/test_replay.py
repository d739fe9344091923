"""Replay is the share that it says, however large the job."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.methods import replay


@pytest.mark.parametrize(("rows", "share"), [(10, 0.1), (1_000, 0.1), (50_000, 0.1), (50_000, 0.5)])
def test_a_share_is_a_share_of_all_rows(rows: int, share: float) -> None:
    count = replay.rows_for(share, rows)
    assert count / (rows + count) == pytest.approx(share, abs=1 / rows)


def test_more_rows_than_prompts_are_the_same_again_and_again(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "FORMS", replay.FORMS[:1])
    monkeypatch.setattr(replay, "MAX_ANSWER_TOKENS", 2)
    model, tokenizer, kept = AutoModelForCausalLM.from_pretrained(small), AutoTokenizer.from_pretrained(small), tmp_path
    known = len(replay.prompts())
    rows = replay.self_answers(model, tokenizer, known + 7, 3, kept / "replay.json")
    assert len(rows) == known + 7
    assert len({tuple(row["input_ids"]) for row in rows}) == known
    assert rows[known:] == rows[:7]
    assert replay.self_answers(None, None, known + 7, 3, kept / "replay.json") == rows, "kept for who goes on"  # pyright: ignore[reportArgumentType]


def test_a_small_job_is_asked_the_written_prompts(small: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(small), AutoTokenizer.from_pretrained(small)
    texts = [tokenizer.decode(row["input_ids"]) for row in replay.self_answers(model, tokenizer, 12, 3)]
    written = replay.PROMPTS.read_text().splitlines()
    assert len(texts) == 12
    assert all(any(prompt in text for prompt in written) for text in texts)
