"""The description that server and trainer share: a job, its method, and what it leaves."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from training.graders.models import Grader, Reward
from training.wire import Description, Text

Auto = Literal["auto"]

GPU_SHARE_VARIABLE = "TUNEPORT_GPU_MEMORY_SHARE"  # in the trainer's environment: what serving leaves of a GPU's memory
KEPT_CHECKPOINTS = 3  # as many as OpenAI keeps


class _Hyperparameters(Description):
    n_epochs: Annotated[int, Field(ge=1, le=50)] | Auto = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256)] | Auto = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Auto = "auto"


class SupervisedHyperparameters(_Hyperparameters):
    """OpenAI's, with its limits, and two of Tuneport's."""

    replay_share: Annotated[float, Field(ge=0, le=0.5)] | Auto = Field(
        default="auto",
        description="Share of the base's own answers to general prompts in what is trained; 0 turns it off.",
    )
    weights: Literal["lora", "qlora", "full"] = Field(
        default="lora",
        description="What is trained: an adapter, one on a base held in 4 bits, or all linear weights.",
    )
    keep: Literal["adapter", "model"] = Field(
        default="adapter",
        description="What full fine-tuning leaves: an adapter extracted from the weights, served beside others, or the "
        "model, served by an engine of its own.",
    )


class PreferenceHyperparameters(_Hyperparameters):
    """OpenAI's for `dpo`, and one of Tuneport's."""

    beta: Annotated[float, Field(gt=0, le=2)] | Auto = "auto"
    supervised_share: Annotated[float, Field(ge=0, le=10)] | Auto = Field(
        default="auto",
        description="Weight of the preferred answers' supervised loss beside DPO's, against collapse; 0 turns it off.",
    )


class ReinforcementHyperparameters(_Hyperparameters):
    """OpenAI's for `reinforcement`, and one of Tuneport's; `reasoning_effort` means nothing to a model without it."""

    compute_multiplier: Annotated[float, Field(gt=0.00001, le=10)] | Auto = "auto"
    eval_interval: Annotated[int, Field(ge=1)] | Auto = "auto"
    eval_samples: Annotated[int, Field(ge=1, le=1_000)] | Auto = "auto"
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"
    max_answer_tokens: Annotated[int, Field(ge=1, le=4096)] | Auto = Field(
        default="auto", description="Longest sampled answer; auto: 256."
    )


class _Method(Description):
    """What every method takes beside its hyperparameters.

    Attributes:
        chat_template: Tuneport's: Jinja source, trained and served with; None: the parent's, the server's, the base's
            own, or where there is none a plain one that needs no new tokens.
    """

    chat_template: Text | None = None


class Supervised(_Method):
    """Learn the answers of conversations; `graders` (Tuneport's) judge the held-out ones at the end."""

    type: Literal["supervised"] = "supervised"
    hyperparameters: SupervisedHyperparameters = SupervisedHyperparameters()
    graders: list[Grader] = Field(default_factory=list, max_length=8)


class Preference(_Method):
    """Learn to prefer one answer to another: DPO."""

    type: Literal["dpo"] = "dpo"
    hyperparameters: PreferenceHyperparameters = PreferenceHyperparameters()


class Reinforcement(_Method):
    """Learn what a grader rewards: GRPO."""

    type: Literal["reinforcement"] = "reinforcement"
    grader: Reward
    hyperparameters: ReinforcementHyperparameters = ReinforcementHyperparameters()


Method = Annotated[Supervised | Preference | Reinforcement, Field(discriminator="type")]


class Gate(BaseModel):
    """What a result must show before an alias is moved to it; a job's metadata wins over tuneport.toml.

    Attributes:
        alias: the alias to move; None: the gate only judges.
        min_gain: the 95 % interval of the first grader's gain over the incumbent, or the base, lies above this.
        min_score: the first grader's mean score, at least this.
        max_kl: nats a token to the base on general prompts, at most this (0.2 is worth a warning, 0.5 is damage).
        max_retention_loss: of the general questions that the base answers, the lower end of the interval of the share
            that is lost, at most this.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    alias: str | None = None
    min_gain: FiniteFloat = 0.0  # nothing is less than NaN, and infinity is null in JSON
    min_score: FiniteFloat = 0.0
    max_kl: Annotated[FiniteFloat, Field(gt=0)] = 0.5
    max_retention_loss: Annotated[float, Field(ge=0, le=1)] = 0.1


# Weights & Biases' limits; they go through the environment, which holds no NUL, with commas between the tags.
WandbName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
WandbTag = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f,]+$")]


class WandbIntegration(Description):
    """Where Weights & Biases shows the metrics; needs the extra `wandb`, and WANDB_API_KEY in the environment."""

    project: WandbName
    entity: WandbName | None = None
    name: WandbName | None = None
    tags: list[WandbTag] = Field(default_factory=list, max_length=64)


class TrainingJob(BaseModel):
    """One fine-tuning job.

    Attributes:
        base_model: served name of the base, `base_path` its folder.
        parent: folder of the adapter to go on from; None: from the base itself.
        incumbent: folder of what the result has to beat, served as `incumbent_name`: what the gate's alias names, or
            else the parent; None: the base alone.
        chat_template: the server's, in place of the base's own.
        training_file, validation_file: JSONL; without the second, a tenth of the first is held out.
        retention_file: JSONL of `{"prompt", "expect"}` beside the built-in questions on what must not be forgotten.
        seed: of the split, the order of the data, LoRA's initial weights, and sampling.
        accept_findings: train in spite of secrets or leakage in the data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    base_model: str
    base_path: Path
    chat_template: str | None = None
    parent: Path | None = None
    incumbent: Path | None = None
    incumbent_name: str | None = None
    training_file: Path
    validation_file: Path | None = None
    retention_file: Path | None = None
    method: Method = Supervised()
    gate: Gate = Gate()
    seed: int = Field(default=0, ge=0, lt=2**31)
    accept_findings: bool = False
    wandb: WandbIntegration | None = None


class Checkpoint(BaseModel):
    """An adapter saved at an epoch's end; `directory` is relative to the job's."""

    step: int
    directory: str
    metrics: dict[str, float]
    created_at: int


class Verdict(BaseModel):
    """What the gate said; `reasons` are sentences, one for each threshold that was missed."""

    passed: bool
    reasons: list[str]
    alias: str | None = None


class Result(BaseModel):
    """What a finished job leaves; `adapter` holds the best checkpoint's weights, not the last's."""

    trained_tokens: int
    best_step: int
    checkpoints: list[Checkpoint]
    hyperparameters: dict[str, Any]
    verdict: Verdict | None = None


class Failure(BaseModel):
    """Why a job failed, as OpenAI's error object has it."""

    code: str
    message: str
    param: str | None = None
