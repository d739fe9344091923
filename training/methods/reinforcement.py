"""GRPO with TRL's GRPOTrainer and PEFT: sample a group of answers, grade them, reinforce those above the mean.

Answers are sampled with plain transformers: 1.2 s a step on a CPU, where vLLM took 4.2 s. An answer on which the grader
fails has no reward: TRL leaves it out of its group's mean, and gives it no advantage.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, set_seed
from trl import GRPOConfig, GRPOTrainer

from adapters.chat import template
from training.data.rows import Task
from training.defaults import Resolved
from training.directory import JobDirectory
from training.errors import GraderFailed, NothingToLearn
from training.graders.grade import Grade, grade
from training.graders.judge import Judge
from training.graders.models import Grader
from training.job import TrainingJob
from training.methods import models
from training.methods.generation import ends
from training.methods.loop.progress import Progress
from training.methods.loop.resume import ResumableTrainer
from training.methods.outcome import Trained, finished
from training.methods.supervised import run
from training.render import turns

TEMPERATURE = 1.0  # TRL's default; the answers of a group must differ
KL_WEIGHT = 0.02  # of the KL to the base; with TRL's 0, a small model's language collapsed
PROBED = 8  # prompts tried before the first step
FAILED_IN_A_ROW = 16  # answers; a judge, asked four times for each, has then been unavailable for two minutes


class RenderedGRPOTrainer(ResumableTrainer, GRPOTrainer):
    """GRPOTrainer for prompts that are rendered text with special tokens.

    An evaluation's reward is the mean over all answers; TRL takes the mean of batch means, where the last batch may
    have one answer only.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._evaluated: list[float] = []

    def _tokenize_prompts(self, prompts: list[str]) -> Any:
        return [template.encode(self.processing_class, prompt) for prompt in prompts], None, {}  # pyright: ignore

    def _calculate_rewards(self, *args: Any) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards(*args)
        if not self.model.training:  # pyright: ignore[reportOptionalMemberAccess]
            self._evaluated += rewards.flatten().tolist()
        return rewards

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Record the metrics of a step or an evaluation.

        Raises:
            GraderFailed: the grader failed on every answer of an evaluation.
        """
        if self._evaluated:
            graded = [reward for reward in self._evaluated if not math.isnan(reward)]
            if not graded:
                raise GraderFailed("the grader failed on every held-out answer; the events say how")
            self._metrics["eval"]["reward"], self._evaluated = graded, []
        super().log(logs, start_time)


class Rewards:
    """The job's grader as TRL calls it. Warns once for each kind of fault; gives up after FAILED_IN_A_ROW failures."""

    __name__ = "grader"

    def __init__(self, grader: Grader, tasks: Sequence[Task], directory: JobDirectory) -> None:
        self._grader = grader
        self._items = {task.line: task.item for task in tasks}
        self._directory = directory
        self._told: set[str] = set()
        self._judge = Judge.from_environment()
        self._failed = 0  # in a row

    def __call__(self, prompts: list[str], completions: list[str], row: list[int], **_: Any) -> list[float | None]:
        """A reward for each completion, or None if the grader failed; `row` has the numbers of their rows.

        Raises:
            GraderFailed: the grader failed on `FAILED_IN_A_ROW` completions in a row.
        """
        items, texts = [self._items[line] for line in row], [text.strip() for text in completions]
        rewards: list[float | None] = []
        for start in range(0, len(texts), FAILED_IN_A_ROW):  # so that an unavailable judge is not asked more
            part = slice(start, start + FAILED_IN_A_ROW)
            grades = grade(self._grader, items[part], texts[part], self._judge)
            rewards += [self._heed(one) for one in grades]
        return rewards

    def _heed(self, one: Grade) -> float | None:
        self._failed = self._failed + 1 if one.failed else 0
        for fault, detail in one.faults.items():
            if fault not in self._told:
                self._told.add(fault)
                get = "have no reward and are left out" if one.failed else "get 0"
                self._directory.event(f"The grader failed ({fault}); such answers {get}: {detail}", level="warn")
        if self._failed == FAILED_IN_A_ROW:
            detail = "; ".join(f"{kind}: {said}" for kind, said in one.faults.items())
            raise GraderFailed(
                f"the grader failed on {self._failed} answers in a row, the last time so: {detail}"[:1_000]
            )
        return None if one.failed else one.score


def train(
    job: TrainingJob,
    grader: Grader,
    directory: JobDirectory,
    tokenizer: PreTrainedTokenizerBase,
    tasks: list[Task],
    validation: list[Task],
    hyperparameters: Resolved,
) -> Trained:
    """Train, or go on from the last checkpoint; leave the adapter of the checkpoint with the best reward.

    Raises:
        NothingToLearn: all first answers get the same reward.
        GraderFailed: the grader, or its judge, fails on many answers in a row.
        TrainingDiverged, Interrupted: see `supervised.train`.
    """
    set_seed(job.seed)
    longest = (
        hyperparameters.max_answer_tokens + max(len(_prompt(tokenizer, task)) for task in (*tasks, *validation)) // 2
    )
    base = models.load_base(job, longest)
    base.generation_config.eos_token_id = sorted(ends(base, tokenizer))  # TRL ends answers at these
    model = models.with_adapter(base, job)
    rewards = Rewards(grader, [*tasks, *validation], directory)
    if not directory.newest_checkpoint():
        _probe(model, tokenizer, tasks[:PROBED], rewards, hyperparameters)
    progress = Progress(directory)
    trainer = RenderedGRPOTrainer(
        model=model,
        reward_funcs=rewards,
        args=_arguments(job, directory, hyperparameters),
        train_dataset=_dataset(tokenizer, tasks),
        eval_dataset=_dataset(tokenizer, [task for task in validation for _ in range(hyperparameters.eval_samples)]),
        processing_class=tokenizer,
        callbacks=[progress],
    )
    run(trainer, directory, progress)
    if "ref" in model.peft_config:
        model.delete_adapter("ref")
    model.save_pretrained(str(directory.adapter), safe_serialization=True)
    return finished(trainer, model, job, directory, tokenizer, hyperparameters, progress.checkpoints())


def _probe(
    model: Any, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[Task], rewards: Rewards, resolved: Resolved
) -> None:
    """Sample and grade a few answers; refuse to train if the rewards differ in no group."""
    samples, limit = resolved.samples, resolved.max_answer_tokens
    prompts = [_prompt(tokenizer, task) for task in tasks for _ in range(samples)]
    encoded = {"input_ids": template.encode_all(tokenizer, prompts)}
    inputs = tokenizer.pad(encoded, padding_side="left", return_tensors="pt").to(model.device)
    with torch.inference_mode():
        outputs = model.generate(**inputs, do_sample=True, temperature=TEMPERATURE, max_new_tokens=limit)
    texts = tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    given = rewards(prompts, texts, [task.line for task in tasks for _ in range(samples)])
    groups = [set(given[start : start + samples]) - {None} for start in range(0, len(given), samples)]
    if any(len(group) > 1 for group in groups):
        return
    if not any(groups):
        raise GraderFailed("the grader failed on every one of the first answers; the events say how")
    raise NothingToLearn(
        f"the base's answers to the first {len(tasks)} prompts all get the same reward: there is nothing to prefer. "
        "Give partial rewards (a multi grader, text_similarity), easier prompts, or a supervised start"
    )


def _prompt(tokenizer: PreTrainedTokenizerBase, task: Task) -> str:
    return template.render(tokenizer, turns(task.prompt), generation_prompt=True)


def _dataset(tokenizer: PreTrainedTokenizerBase, tasks: Sequence[Task]) -> Dataset:
    return Dataset.from_list([{"prompt": _prompt(tokenizer, task), "row": task.line} for task in tasks])


def _arguments(job: TrainingJob, directory: JobDirectory, hyperparameters: Resolved) -> GRPOConfig:
    every = hyperparameters.eval_interval
    common = models.arguments(job, directory.checkpoints, hyperparameters, evaluate_every=every)
    # A batch is several prompts, each with its group of answers; a pass has one group.
    common |= {
        "per_device_train_batch_size": hyperparameters.samples,
        "gradient_accumulation_steps": hyperparameters.batch_size,
    }
    return GRPOConfig(
        **common,
        per_device_eval_batch_size=models.MAX_ROWS_A_PASS,
        num_generations=hyperparameters.samples,
        num_generations_eval=1,  # prompts are repeated in the data as often as they are sampled
        max_completion_length=hyperparameters.max_answer_tokens,
        temperature=TEMPERATURE,
        beta=KL_WEIGHT,
        mask_truncated_completions=False,
        remove_unused_columns=False,
        metric_for_best_model="eval_reward",
        greater_is_better=True,
    )
