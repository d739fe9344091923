"""The types that server and trainer share: a job, its method, and its result."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from training.graders.models import Grader, Reward
from training.wire import Description, Text

Auto = Literal["auto"]

GPU_SHARE_VARIABLE = "TUNEPORT_GPU_MEMORY_SHARE"  # environment variable: the share of a GPU's memory for the trainer
KEPT_CHECKPOINTS = 3  # as many as at OpenAI


class _Hyperparameters(Description):
    n_epochs: Annotated[int, Field(ge=1, le=50)] | Auto = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256)] | Auto = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Auto = "auto"


class SupervisedHyperparameters(_Hyperparameters):
    """OpenAI's hyperparameters with their limits, and two of Tuneport's."""

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
    """OpenAI's hyperparameters for `dpo`, and one of Tuneport's."""

    beta: Annotated[float, Field(gt=0, le=2)] | Auto = "auto"
    supervised_share: Annotated[float, Field(ge=0, le=10)] | Auto = Field(
        default="auto",
        description="Weight of the preferred answers' supervised loss beside DPO's, against collapse; 0 turns it off.",
    )


class ReinforcementHyperparameters(_Hyperparameters):
    """OpenAI's hyperparameters for `reinforcement`, and one of Tuneport's; `reasoning_effort` has no effect here."""

    compute_multiplier: Annotated[float, Field(gt=0.00001, le=10)] | Auto = "auto"
    eval_interval: Annotated[int, Field(ge=1)] | Auto = "auto"
    eval_samples: Annotated[int, Field(ge=1, le=1_000)] | Auto = "auto"
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"
    max_answer_tokens: Annotated[int, Field(ge=1, le=4096)] | Auto = Field(
        default="auto", description="Longest sampled answer; auto: 256."
    )


class _Method(Description):
    """Fields of every method besides its hyperparameters.

    Attributes:
        chat_template: Jinja source to train and serve with (Tuneport's field). None: the parent's, the server's, the
            base's, or if there is none, a plain one that needs no new tokens.
    """

    chat_template: Text | None = None


class Supervised(_Method):
    """Learn the answers of conversations; `graders` (Tuneport's field) judge held-out answers at the end."""

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
    """What a result must show before an alias is moved to it; a job's metadata override tuneport.toml.

    Attributes:
        alias: the alias to move; None: the gate only judges.
        min_gain: the 95 % interval of the gain by the first grader, over incumbent or base, must lie above this.
        min_score: least mean score by the first grader.
        max_kl: most nats a token from the base on general prompts (0.2 is worth a warning, 0.5 is damage).
        max_retention_loss: share of the general questions known to the base that may be lost; the lower end of its 95 %
            interval counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    alias: str | None = None
    min_gain: FiniteFloat = 0.0  # finite: comparisons with NaN are always false, and infinity is null in JSON
    min_score: FiniteFloat = 0.0
    max_kl: Annotated[FiniteFloat, Field(gt=0)] = 0.5
    max_retention_loss: Annotated[float, Field(ge=0, le=1)] = 0.1


# Weights & Biases' limits; no NUL, as values are passed by environment variables, and no comma, which separates tags.
WandbName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
WandbTag = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f,]+$")]


class WandbIntegration(Description):
    """Sends the metrics to Weights & Biases; needs the extra `wandb`, and WANDB_API_KEY in the environment."""

    project: WandbName
    entity: WandbName | None = None
    name: WandbName | None = None
    tags: list[WandbTag] = Field(default_factory=list, max_length=64)


class TrainingJob(BaseModel):
    """One fine-tuning job.

    Attributes:
        base_model: served name of the base, `base_path` its folder.
        parent: folder of the adapter to continue to train; None: start from the base.
        incumbent: folder of the model that the result has to beat, served as `incumbent_name`: the gate's alias, else
            the parent; None: only the base.
        chat_template: the server's template, used instead of the base's own.
        training_file, validation_file: JSONL; without the second, a tenth of the first is held out.
        retention_file: JSONL of `{"prompt", "expect"}`, questions besides the built-in ones that must not be forgotten.
        seed: for the split, the order of the data, LoRA's initial weights, and sampling.
        accept_findings: train even if secrets or leakage are found in the data.
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
    """The gate's verdict; `reasons` are sentences, one for each threshold that was missed."""

    passed: bool
    reasons: list[str]
    alias: str | None = None


class Result(BaseModel):
    """A finished job's result. The directory's `adapter/` holds the weights of `best_step`, not of the last step."""

    trained_tokens: int
    best_step: int
    checkpoints: list[Checkpoint]
    hyperparameters: dict[str, Any]
    verdict: Verdict | None = None


class Failure(BaseModel):
    """Why a job failed, in the fields of OpenAI's error object."""

    code: str
    message: str
    param: str | None = None
