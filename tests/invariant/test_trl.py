"""DPO and GRPO as a job trains them are plain TRL on the same rows and seed, step by step.

And the log-probabilities that they train are those of a plain forward by transformers and PEFT, row by row.
"""

import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

from adapters.chat import template
from training import defaults
from training.data.messages import Message
from training.data.rows import Pair, Task
from training.defaults import Resolved
from training.directory import JobDirectory, read_lines
from training.graders.models import TextSimilarity
from training.job import TrainingJob
from training.methods import models, preference, reinforcement
from training.render import Ids, render_pair, turns

SEED, RATE, SHARE = 3, 2e-3, 0.2
PAIRS = [Pair((Message("user", f"Say {n}"),), f"{n} it is", "No" + "!" * n, n) for n in range(8)]
LETTERS = string.ascii_letters + string.digits  # random bytes share some with it, and not all alike
TASKS = [Task((Message("user", f"Say {n}"),), {"answer": LETTERS}, n) for n in range(6)]
HELD_OUT = 3
EVALUATED = 9  # answers
BY_DPO = Resolved(2, 4, RATE, 1, supervised_share=SHARE)
# An epoch of three steps, two prompts with four answers each, evaluated after the second and at the end.
BY_GRPO = Resolved(1, 2, RATE, 1, samples=4, eval_interval=2, eval_samples=3, max_answer_tokens=6)
GRADER = TextSimilarity(
    type="text_similarity",
    name="like",
    input="{{ sample.output_text }}",
    reference="{{ item.answer }}",
    evaluation_metric="fuzzy_match",
)


@dataclass(frozen=True)
class Run:
    """A job that was trained, in fp32: what bf16 rounds away would hide a difference."""

    directory: JobDirectory
    tokenizer: Any
    trainer: Any

    def figures(self, name: str) -> list[float]:
        """What the trainer logged."""
        return logged(self.trainer, name)


def logged(trainer: Any, name: str) -> list[float]:
    return [line[name] for line in trainer.state.log_history if name in line]


def plain(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


@pytest.fixture(scope="module", params=["dpo", "grpo"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, small: Path) -> Iterator[Run]:
    folder, tokenizer = tmp_path_factory.mktemp("run"), AutoTokenizer.from_pretrained(small)
    job = TrainingJob(id="ftjob-1", base_model="small", base_path=small, training_file=folder / "rows", seed=SEED)
    directory = JobDirectory.create(folder / "job", job)
    made: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "bf16_supported", lambda: False)
        patch.setattr(models, "MAX_ROWS_A_PASS", EVALUATED)  # of several batches, TRL's mean is another
        for method in (preference, reinforcement):
            begin = method.run
            patch.setattr(
                method, "run", lambda trainer, *rest, begin=begin: (made.append(trainer), begin(trainer, *rest))
            )
        if request.param == "dpo":
            rows: list[Ids] = [render_pair(tokenizer, pair) for pair in PAIRS]
            preference.train(job, directory, tokenizer, rows, rows[:HELD_OUT], BY_DPO)
        else:
            reinforcement.train(job, GRADER, directory, tokenizer, TASKS, TASKS[:HELD_OUT], BY_GRPO)
        yield Run(directory, tokenizer, made[0])


dpo = pytest.mark.parametrize("run", ["dpo"], indirect=True)
grpo = pytest.mark.parametrize("run", ["grpo"], indirect=True)


def common(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "seed": SEED,
        "learning_rate": RATE,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
    }


def new_adapter() -> LoraConfig:
    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def prompt_text(tokenizer: Any, row: Pair | Task) -> str:
    return template.render(tokenizer, turns(row.prompt), generation_prompt=True)


def log_probabilities(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """`[len(answer)]` nats, of one row without padding."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0]


@dpo
def test_dpo_is_trls(run: Run, small: Path, tmp_path: Path) -> None:
    """Of text; of messages TRL trains the line break behind the end of turn too, which no server waits for."""
    texts = [
        {"prompt": prompt_text(run.tokenizer, pair), "chosen": pair.answer, "rejected": pair.rejected} for pair in PAIRS
    ]
    set_seed(SEED)
    theirs = DPOTrainer(
        model=plain(small),
        args=DPOConfig(
            **common(tmp_path),
            num_train_epochs=2,
            beta=defaults.BETA,
            loss_type=["sigmoid", "sft"],
            loss_weights=[1.0, SHARE],
        ),
        train_dataset=Dataset.from_list(texts),
        processing_class=run.tokenizer,
        peft_config=new_adapter(),
    )
    theirs.train()
    for name in ("loss", "grad_norm", "rewards/margins", "logps/chosen", "logps/rejected"):
        assert len(logged(theirs, name)) == 4
        assert run.figures(name) == pytest.approx(logged(theirs, name), rel=1e-3, abs=1e-4), name


@dpo
def test_dpo_trains_the_log_probabilities_of_a_plain_forward(run: Run, small: Path) -> None:
    losses = run.figures("eval_loss")
    best = losses.index(min(losses))
    trained = PeftModel.from_pretrained(plain(small), str(run.directory.adapter))
    ratios: dict[str, torch.Tensor] = {}
    means: dict[str, torch.Tensor] = {}  # of a token
    for side in ("chosen", "rejected"):
        rows = [render_pair(run.tokenizer, pair) for pair in PAIRS[:HELD_OUT]]
        by_row = [(row["prompt_ids"], row[f"{side}_ids"]) for row in rows]
        ours = [log_probabilities(trained, *one) for one in by_row]
        with trained.disable_adapter():
            base = [log_probabilities(trained, *one) for one in by_row]
        ratios[side] = torch.stack([one.sum() - other.sum() for one, other in zip(ours, base, strict=True)])
        mean = torch.stack([one.sum() for one in ours]).mean()
        assert run.figures(f"eval_logps/{side}")[best] == pytest.approx(mean.item(), rel=1e-4)
        means[side] = torch.cat(ours).mean()
    assert ratios["chosen"].abs().min() > 0.1, "it was trained"
    loss = -logsigmoid(defaults.BETA * (ratios["chosen"] - ratios["rejected"])).mean() - SHARE * means["chosen"]
    assert losses[best] == pytest.approx(loss.item(), rel=1e-4)


@grpo
def test_grpo_is_trls(run: Run, small: Path, tmp_path: Path) -> None:
    def reward(prompts: Any, completions: Any, row: list[int], **_: Any) -> list[float | None]:
        return run.trainer.reward_funcs[0](prompts, [completion[0]["content"] for completion in completions], row)

    def asked(tasks: list[Task]) -> Dataset:
        return Dataset.from_list([{"prompt": turns(task.prompt), "row": task.line} for task in tasks])

    set_seed(SEED)
    theirs = GRPOTrainer(
        model=plain(small),
        args=GRPOConfig(
            **common(tmp_path),
            num_train_epochs=1,
            gradient_accumulation_steps=2,
            num_generations=4,
            max_completion_length=6,
            beta=reinforcement.KL_WEIGHT,
            eval_strategy="steps",
            per_device_eval_batch_size=EVALUATED,
            eval_steps=2,
            num_generations_eval=1,
        ),
        reward_funcs=reward,
        train_dataset=asked(TASKS),
        eval_dataset=asked([task for task in TASKS[:HELD_OUT] for _ in range(3)]),
        processing_class=run.tokenizer,
        peft_config=new_adapter(),
    )
    theirs.train()
    for name in ("loss", "reward", "reward_std", "kl", "grad_norm", "completions/mean_length"):
        assert len(logged(theirs, name)) == 3
        assert run.figures(name) == pytest.approx(logged(theirs, name), rel=1e-2, abs=1e-5), name
    assert run.figures("eval_reward") == pytest.approx(logged(theirs, "eval_reward"), rel=1e-3)
    assert max(run.figures("kl")) > 1e-3, "it was trained"


@grpo
def test_grpo_evaluates_when_it_was_told_to_and_at_the_end_on_so_many_answers(run: Run) -> None:
    lines = read_lines(run.directory.metrics_file)
    assert [line["step"] for line in lines if "full_valid_mean_reward" in line] == [2, 3]
    assert sorted(run.trainer.eval_dataset["row"]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@grpo
def test_grpo_trains_the_log_probabilities_of_a_plain_forward(run: Run, small: Path) -> None:
    rows = [(list(range(10, 16 + n)), list(range(30, 38))) for n in range(3)]
    padded = run.tokenizer.pad({"input_ids": [prompt + answer for prompt, answer in rows]}, padding_side="left")
    ids, mask = torch.tensor(padded["input_ids"]), torch.tensor(padded["attention_mask"])
    with torch.no_grad():
        ours, *_ = run.trainer._get_per_token_logps_and_entropies(run.trainer.model, ids, mask, 8)
    model = PeftModel.from_pretrained(plain(small), str(run.directory.adapter))
    wanted = torch.stack([log_probabilities(model, *one) for one in rows])
    assert torch.allclose(ours, wanted, atol=1e-4)
    with model.disable_adapter():
        base = torch.stack([log_probabilities(model, *one) for one in rows])
    assert (wanted - base).abs().max() > 0.05, "it was trained"
