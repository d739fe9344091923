"""`tuneport eval` says what a job's report says of the same answers, from the same code."""

import json
from pathlib import Path
from typing import Any

import pytest

from server.cli.evaluation import comparison
from server.cli.evaluation.answers import Endpoint
from training.graders.default import DEFAULT_GRADERS
from training.proof.scoring import BASE, TUNED, score

JUDGE = {"type": "score_model", "name": "judge", "model": "j", "input": [{"role": "user", "content": "Rate"}]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"answer {n}"}]}
        for n in range(12)
    ]
    file = tmp_path / "held_out.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


ANSWERS = [["no"] * 12, [f"answer {n}" for n in range(11)] + ["no"]]


def evaluated(monkeypatch: pytest.MonkeyPatch, data: Path, graders: Path | None, as_json: bool) -> int:
    async def asked(*_: Any) -> tuple[str, list[list[str]]]:
        return "base", ANSWERS

    monkeypatch.setattr(comparison, "_ask_both", asked)
    monkeypatch.setenv("COLUMNS", "200")
    unused = Endpoint("http://unused", "")
    return comparison.evaluate("ft:x", None, data, graders, 512, unused, unused, None, as_json)


def test_the_figures_are_those_of_a_proof(
    monkeypatch: pytest.MonkeyPatch, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [{"reference": f"answer {n}"} for n in range(12)]
    scores = [score(grader, items, {BASE: ANSWERS[0], TUNED: ANSWERS[1]}, None) for grader in DEFAULT_GRADERS]
    expected = [one for each in scores if (one := each.compare(BASE, "base"))]
    assert evaluated(monkeypatch, data, None, as_json=True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["comparisons"] == [one.model_dump() for one in expected]
    assert printed["failures"] == []
    assert evaluated(monkeypatch, data, None, as_json=False) == 0
    text = capsys.readouterr().out
    for one in expected:
        assert one.sentence() in " ".join(text.split())
        assert all(cell in text for cell in one.cells().values())


def test_a_graders_name_is_no_markup(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"type": "string_check", "name": "[b]x[/i]", "operation": "eq", "input": "a", "reference": "a"}
    graders = tmp_path / "grader.json"
    graders.write_text(json.dumps(content))
    assert evaluated(monkeypatch, data, graders, as_json=False) == 0
    assert "[b]x[/i]: base against ft:x" in capsys.readouterr().out


def test_a_grader_that_fails_is_an_error_and_no_score(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TUNEPORT_JUDGE_URL", raising=False)
    graders = tmp_path / "grader.json"
    graders.write_text(json.dumps(JUDGE))
    assert evaluated(monkeypatch, data, graders, as_json=True) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["comparisons"] == []
    assert "error: the grader judge failed on 12 of 12 rows" in " ".join(said.err.split())
