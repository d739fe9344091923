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
from transformers import AutoModelForCausalLM, TrainerControl, TrainerState, TrainingArguments

from tests.training.mortal import Death
from tests.training.spawned import Spawner
from training.__main__ import GO_ON_LATER
from training.directory import JobDirectory, append_line, read_lines
from training.job import Result, TrainingJob
from training.methods.loop import resume
from training.methods.loop.progress import Progress
from training.methods.loop.resume import ResumableTrainer

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


def row(method: str, number: int, *, opposed: bool = False) -> dict[str, Any]:
    question = {"role": "user", "content": "Say " + "so " * (number % 5) + str(number)}
    answer, other = ({"role": "assistant", "content": text} for text in (f"{number} it is", "No" + "!" * number))
    if opposed:
        answer, other = other, answer
    if method == "dpo":
        return {"input": {"messages": [question]}, "preferred_output": [answer], "non_preferred_output": [other]}
    if method == "grpo":
        return {"messages": [question], "answer": LETTERS}
    return {"messages": [question, answer]}


def job(folder: Path, base: Path, method: str, *, opposed: bool = False, **hyperparameters: Any) -> JobDirectory:
    """A job; `opposed`: what it holds out is answered as it is trained not to answer."""
    folder.mkdir()
    for name, numbers in (("train", range(ROWS)), ("valid", range(ROWS, ROWS + 4))):
        rows = [row(method, number, opposed=opposed and name == "valid") for number in numbers]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    wanted = {**METHODS[method]}
    wanted["hyperparameters"] = {
        "n_epochs": EPOCHS,
        "batch_size": BATCH,
        **wanted["hyperparameters"],
        **hyperparameters,
    }
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


@pytest.mark.parametrize("method", ["lora", "dpo"])
def test_killed_after_it_stopped_early_it_trains_no_further(
    tmp_path: Path, small: Path, spawner: Spawner, method: str
) -> None:
    stopped = job(tmp_path / "stopped", small, method, opposed=True, n_epochs=12, learning_rate_multiplier=20)
    die(spawner, stopped, Death(trained=True))
    trained, seen = steps(stopped), len(stopped.events())
    assert max(step for step, _ in trained) < trained[1, "total_steps"]
    result = spawner.train(stopped, Death().environment())
    assert isinstance(result, Result), stopped.log_file.read_text()
    assert steps(stopped) == trained
    assert result.best_step < max(step for step, _ in trained)
    assert not [event for event in stopped.events(seen) if event["type"] == "metrics"]


def test_an_epochs_order_follows_from_its_seed_and_number(tmp_path: Path, small: Path) -> None:
    rows = [{"input_ids": [1] * (n % 7 + 1), "labels": [1] * (n % 7 + 1)} for n in range(20)]
    arguments = TrainingArguments(str(tmp_path), seed=3, use_cpu=True, train_sampling_strategy="group_by_length")
    model = AutoModelForCausalLM.from_pretrained(small)

    def order(epoch: float) -> list[int]:
        trainer = ResumableTrainer(model, arguments, train_dataset=rows)  # pyright: ignore[reportArgumentType]
        trainer.state.epoch = epoch
        return list(trainer._get_train_sampler())

    assert sorted(order(0)) == list(range(20))
    assert order(1) == order(1.95) != order(2)


def test_what_a_kill_left_is_swept_and_the_newest_whole_checkpoint_counts(tmp_path: Path) -> None:
    assert resume.newest(tmp_path / "checkpoints") is None
    for name in ("checkpoint-9", "checkpoint-10", "saving/checkpoint-11", "deleted-checkpoint-8"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "trainer_state.json").touch()
    (tmp_path / "checkpoints" / "checkpoint-12").mkdir()  # of a version that wrote in place
    (tmp_path / "checkpoints" / "README.md").touch()  # TRL's
    assert resume.newest(tmp_path / "checkpoints") == str(tmp_path / "checkpoints" / "checkpoint-10")
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["README.md", "checkpoint-10", "checkpoint-9"]


def test_a_checkpoint_that_a_kill_kept_from_being_recorded_is_recorded_later(tmp_path: Path, small: Path) -> None:
    directory = job(tmp_path / "job", small, "lora")
    (directory.checkpoints / "checkpoint-4").mkdir(parents=True)
    for step, loss in ((4, 2.0), (5, 9.0), (4, 1.0)):  # trained again after an earlier kill
        append_line(directory.metrics_file, {"step": step, "train_loss": loss, "time": 0})
    progress, arguments = Progress(directory), TrainingArguments(str(tmp_path), use_cpu=True)
    for _ in range(2):
        progress.on_train_begin(arguments, TrainerState(epoch=1.0, global_step=4, max_steps=8), TrainerControl())
    (checkpoint,) = progress.checkpoints()
    assert checkpoint.metrics == {"step": 4, "train_loss": 1.0}
