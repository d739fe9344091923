"""A run killed at any moment ends with an untouched one's weights, bit for bit; so does one that was paused."""

import json
import re
import signal
import string
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.mortal import Death
from tests.training.spawned import Spawner
from training.__main__ import GO_ON_LATER
from training.directory import JobDirectory, read_lines
from training.job import Result, TrainingJob

EPOCHS, ROWS, BATCH = 3, 14, 4
LETTERS = string.ascii_letters + string.digits  # random bytes share some with it, and not all alike
METHODS: dict[str, Any] = {
    "lora": {"type": "supervised", "hyperparameters": {"replay_share": 0.2}},
    "full": {"type": "supervised", "hyperparameters": {"weights": "full", "keep": "model", "replay_share": 0.2}},
    "dpo": {"type": "dpo", "hyperparameters": {"learning_rate_multiplier": 10}},
    "grpo": {
        "type": "reinforcement",
        "grader": {
            "type": "text_similarity",
            "name": "like",
            "input": "{{ sample.output_text }}",
            "reference": "{{ item.answer }}",
            "evaluation_metric": "fuzzy_match",
        },
        "hyperparameters": {"compute_multiplier": 0.25, "max_answer_tokens": 6, "learning_rate_multiplier": 10},
    },
}


def row(method: str, number: int) -> dict[str, Any]:
    question = {"role": "user", "content": "Say " + "so " * (number % 5) + str(number)}
    answer, other = ({"role": "assistant", "content": text} for text in (f"{number} it is", "No" + "!" * number))
    if method == "dpo":
        return {"input": {"messages": [question]}, "preferred_output": [answer], "non_preferred_output": [other]}
    if method == "grpo":
        return {"messages": [question], "answer": LETTERS}
    return {"messages": [question, answer]}


def job(folder: Path, base: Path, method: str) -> JobDirectory:
    folder.mkdir()
    for name, numbers in (("train", range(ROWS)), ("valid", range(ROWS, ROWS + 4))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row(method, n)) + "\n" for n in numbers))
    wanted = {**METHODS[method]}
    wanted["hyperparameters"] = {"n_epochs": EPOCHS, "batch_size": BATCH, **wanted["hyperparameters"]}
    described = TrainingJob(
        id="ftjob-test",
        base_model="tiny",
        base_path=base,
        training_file=folder / "train.jsonl",
        validation_file=folder / "valid.jsonl",
        method=wanted,  # pyright: ignore[reportArgumentType] (pydantic reads it)
        seed=5,
    )
    return JobDirectory.create(folder / "job", described)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory, small: Path, spawner: Spawner) -> Callable[[str], JobDirectory]:
    """Runs that end by themselves, one a method."""

    @cache
    def run(method: str) -> JobDirectory:
        directory = job(tmp_path_factory.mktemp(method) / "untouched", small, method)
        assert isinstance(spawner.train(directory, Death().environment()), Result), directory.log_file.read_text()
        assert all(figure > 0 for (_, name), figure in steps(directory).items() if name == "grad_norm"), "it trains"
        return directory

    return run


def die(spawner: Spawner, directory: JobDirectory, death: Death) -> None:
    """A trainer that ends as it is told to."""
    number, _ = spawner.start(directory, death.environment())
    assert spawner.ended(number) == (GO_ON_LATER if death.sign == signal.SIGTERM else -signal.SIGKILL)


def resumptions(directory: JobDirectory) -> list[int]:
    """After which steps trainers went on."""
    said = [re.search(r"resumed after step (\d+)", event["message"]) for event in directory.events()]
    return [int(match[1]) for match in said if match]


def steps(directory: JobDirectory) -> dict[tuple[int, str], float]:
    """Every figure of every step and evaluation, as it was last."""
    lines = read_lines(directory.metrics_file)
    return {(line["step"], name): line[name] for line in lines for name in line if name not in ("step", "time")}


def left(directory: JobDirectory) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The result without its times, and all tensors: the best weights, each checkpoint's, the optimizer's last."""
    result = directory.outcome()
    assert isinstance(result, Result), directory.log_file.read_text()
    tensors: dict[str, torch.Tensor] = {}
    for file in (*directory.adapter.rglob("*.safetensors"), *directory.checkpoints.rglob("*.safetensors")):
        tensors |= {f"{file.relative_to(directory.path)} {name}": one for name, one in load_file(file).items()}
    optimizer = torch.load(directory.checkpoints / f"checkpoint-{directory.newest_checkpoint()}" / "optimizer.pt")
    for number, state in optimizer["state"].items():
        tensors |= {f"optimizer {number} {name}": one for name, one in state.items()}
    return result.model_dump(exclude={"checkpoints": {"__all__": {"created_at"}}}), tensors


def assert_same(one: JobDirectory, other: JobDirectory) -> None:
    assert steps(one) == steps(other)
    (result, tensors), (wanted, originals) = left(one), left(other)
    assert result == wanted
    assert tensors.keys() == originals.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], originals[name])] == []


@pytest.mark.parametrize("method", METHODS)
def test_killed_in_two_epochs_and_in_a_save_it_ends_as_an_untouched_run(
    tmp_path: Path, small: Path, spawner: Spawner, untouched: Callable[[str], JobDirectory], method: str
) -> None:
    whole = untouched(method)
    epoch = max(step for step, _ in steps(whole)) // EPOCHS
    killed = job(tmp_path / "killed", small, method)
    die(spawner, killed, Death(step=1, always_save=True))  # within epoch 1
    die(spawner, killed, Death(save=2 * epoch, always_save=True))  # in the save at the end of epoch 2
    die(spawner, killed, Death(step=2 * epoch + 1, always_save=True))  # within epoch 3
    spawner.train(killed, Death().environment())
    assert resumptions(killed) == [1, 2 * epoch - 1, 2 * epoch + 1]
    assert_same(killed, whole)


def test_paused_moved_and_paused_again_it_ends_as_an_untouched_run(
    tmp_path: Path, small: Path, spawner: Spawner, untouched: Callable[[str], JobDirectory]
) -> None:
    """A pause evaluates nothing; the best checkpoint is found where the job's folder is by then."""
    whole = untouched("lora")
    epoch = max(step for step, _ in steps(whole)) // EPOCHS
    paused = job(tmp_path / "paused", small, "lora")
    die(spawner, paused, Death(step=epoch + 1, sign=signal.SIGTERM))
    paused = JobDirectory(paused.path.rename(tmp_path / "moved"))
    die(spawner, paused, Death(step=2 * epoch - 1, sign=signal.SIGTERM))  # before the last step of epoch 2
    spawner.train(paused, Death().environment())
    assert resumptions(paused) == [epoch + 2, 2 * epoch]
    assert_same(paused, whole)
