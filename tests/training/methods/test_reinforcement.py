"""What GRPO makes of a grader that fails: no reward, and an end where nothing else comes."""

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from transformers import AutoTokenizer

from training.data.messages import Message
from training.data.rows import Task
from training.defaults import Resolved
from training.directory import JobDirectory, read_lines
from training.errors import GraderFailed
from training.graders.models import Python, StringCheck
from training.job import TrainingJob
from training.methods import reinforcement
from training.methods.reinforcement import FAILED_IN_A_ROW, RenderedGRPOTrainer, Rewards

SAMPLES, EVALUATED = 4, 9
EQUAL = StringCheck(
    type="string_check", name="equal", input="{{sample.output_text}}", reference="{{item.answer}}", operation="eq"
)
# Answers of random bytes: half of them, or so, are none that it can grade.
FAILS = Python(
    type="python",
    name="odd",
    source="def grade(sample, item):\n    n = sum(map(ord, sample['output_text']))\n    return n % 7 / (n % 2)",
)


def tasks(*items: dict[str, Any]) -> list[Task]:
    return [Task((Message("user", f"Say {line}"),), item, line) for line, item in enumerate(items)]


def job(folder: Path, base: Path) -> tuple[TrainingJob, JobDirectory]:
    described = TrainingJob(id="ftjob-1", base_model="small", base_path=base, training_file=folder / "rows", seed=3)
    return described, JobDirectory.create(folder / "job", described)


def test_an_answer_on_which_the_grader_fails_has_no_reward(tmp_path: Path, small: Path) -> None:
    _, directory = job(tmp_path, small)
    rewards = Rewards(EQUAL, tasks({"answer": "a"}, {}), directory)
    assert rewards(["?"] * 4, ["a", "a", "b", "b"], [0, 1, 0, 1]) == [1.0, None, 0.0, None]
    (said,) = [event["message"] for event in directory.events()]
    assert "left out" in said
    assert "no 'answer'" in said


def test_a_grader_that_fails_time_after_time_ends_the_job(tmp_path: Path, small: Path) -> None:
    rewards = Rewards(EQUAL, tasks({"answer": "a"}, {}), job(tmp_path, small)[1])
    most = FAILED_IN_A_ROW - 1
    rewards(["?"] * most, ["a"] * most, [1] * most)
    rewards(["?"], ["a"], [0])  # it works again
    rewards(["?"] * most, ["a"] * most, [1] * most)
    with pytest.raises(GraderFailed, match=f"{FAILED_IN_A_ROW} answers in a row, .*no 'answer'"):
        rewards(["?"], ["a"], [1])


def test_a_grader_that_fails_at_first_is_not_taken_for_one_that_rewards_alike(tmp_path: Path, small: Path) -> None:
    described, directory = job(tmp_path, small)
    resolved = Resolved(1, 2, 1e-3, 1, samples=2, eval_interval=1, max_answer_tokens=2)
    with pytest.raises(GraderFailed, match="every one of the first answers"):
        reinforcement.train(
            described, EQUAL, directory, AutoTokenizer.from_pretrained(small), tasks({}, {}), tasks({}), resolved
        )


def test_failures_are_no_reward_and_an_evaluation_is_the_mean_of_all_its_answers(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described, directory = job(tmp_path, small)
    given: list[list[float | None]] = []
    learnt: list[dict[str, Any]] = []
    reward, score = Rewards.__call__, RenderedGRPOTrainer._generate_and_score_completions

    def rewarded(self: Rewards, *args: Any, **kwargs: Any) -> list[float | None]:
        given.append(reward(self, *args, **kwargs))
        return given[-1]

    def scored(self: RenderedGRPOTrainer, inputs: Any) -> dict[str, Any]:
        learnt.append(score(self, inputs))
        return learnt[-1]

    monkeypatch.setattr(Rewards, "__call__", rewarded)
    monkeypatch.setattr(RenderedGRPOTrainer, "_generate_and_score_completions", scored)
    resolved = Resolved(1, 2, 1e-3, 1, samples=SAMPLES, eval_interval=1, eval_samples=3, max_answer_tokens=4)
    rows = tasks({}, {}, {})
    reinforcement.train(described, FAILS, directory, AutoTokenizer.from_pretrained(small), rows[:2], rows, resolved)
    _, step, *evaluated = given  # the first are the probe's
    assert sum(map(len, evaluated)) == EVALUATED
    figures = {name: value for line in read_lines(directory.metrics_file) for name, value in line.items()}
    held_out = [one for batch in evaluated for one in batch if one is not None]
    assert figures["full_valid_mean_reward"] == pytest.approx(fmean(held_out))
    assert 0 < len(held_out) < EVALUATED
    assert figures["train_mean_reward"] == pytest.approx(fmean(one for one in step if one is not None))

    advantages = learnt[0]["advantages"].tolist()
    assert {advantages[place] for place, one in enumerate(step) if one is None} == {0.0}
    for start in range(0, len(step), SAMPLES):
        assert sum(advantages[start : start + SAMPLES]) == pytest.approx(0, abs=1e-4)
    assert max(advantages) > 0


def test_a_mark_in_a_task_is_text_where_it_is_sampled(tokenizer: Any) -> None:
    """TRL keeps prompts as texts, cuts and all."""
    trainer = RenderedGRPOTrainer.__new__(RenderedGRPOTrainer)
    trainer.processing_class = tokenizer
    task = Task((Message("system", "Be brief."), Message("user", "Say <|im_end|>")), {}, 1)
    ((ids,), _, _) = trainer._tokenize_prompts([reinforcement._prompt(tokenizer, task)])
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2
