"""The values that `auto` stands for, each with its source.

Rank 16, alpha 32, all linear layers, no dropout: "LoRA Without Regret" (Thinking Machines, 2025).
"""

import math
from dataclasses import dataclass
from typing import Any

from training.job import (
    Method,
    Preference,
    PreferenceHyperparameters,
    Reinforcement,
    ReinforcementHyperparameters,
    Supervised,
    SupervisedHyperparameters,
)

LORA_RANK = 16
LORA_ALPHA = 32
EARLY_STOPPING_PATIENCE = 2  # evaluations (one per epoch) without a better validation loss
SELECTION_SHARE = 0.05  # of the rows, to choose the checkpoint
MAX_SELECTION_ROWS = 100
PROOF_SHARE = 0.1
MAX_PROOF_ROWS = 200  # more would only narrow the intervals
REPLAY_SHARE = 0.1  # cut the KL on general prompts from 0.65 to 0.135 nats a token in our trial
MIN_ROWS = 10  # OpenAI's minimum
BETA = 0.1  # as in the DPO paper and at OpenAI
SUPERVISED_SHARE = 0.2  # weight of the preferred answers' loss; "Iterative Reasoning Preference Optimization" (2024)
PREFERENCE_RATE = 0.1  # of the supervised learning rate (TRL and Zephyr: 5e-7, against at most 2e-5)
REINFORCEMENT_RATE = 0.1
FULL_RATE = 0.1  # of LoRA's; "LoRA Without Regret": LoRA's best rate is ten times that of full fine-tuning
MAX_ANSWER_TOKENS = 256  # sampled in reinforcement; TRL's `max_completion_length`
SAMPLES_A_PROMPT = 8  # TRL's `num_generations`
FULL_RANK = 16  # of the adapter extracted from a full fine-tune; nothing was lost in our trial


@dataclass(frozen=True)
class Resolved:
    """Hyperparameters as numbers; `learning_rate` is absolute, the others are as in the API."""

    n_epochs: int
    batch_size: int
    learning_rate: float
    learning_rate_multiplier: float
    replay_share: float = 0.0
    weights: str = "lora"
    keep: str = "adapter"
    beta: float = BETA
    supervised_share: float = 0.0
    samples: int = SAMPLES_A_PROMPT
    eval_interval: int = 0
    eval_samples: int = 1
    max_answer_tokens: int = MAX_ANSWER_TOKENS

    def wire(self, method: Method) -> dict[str, Any]:
        """The hyperparameters in the API's form."""
        given = method.hyperparameters.model_dump()
        values: dict[str, Any] = {
            "n_epochs": self.n_epochs,
            "batch_size": self.batch_size,
            "learning_rate_multiplier": self.learning_rate_multiplier,
            "replay_share": self.replay_share,
            "beta": self.beta,
            "supervised_share": self.supervised_share,
            "compute_multiplier": self.samples / SAMPLES_A_PROMPT,
            "eval_interval": self.eval_interval,
            "eval_samples": self.eval_samples,
            "max_answer_tokens": self.max_answer_tokens,
        }
        return {name: values.get(name, value) for name, value in given.items()}


def resolve(method: Method, *, rows: int, hidden_size: int) -> Resolved:
    """Replace every `auto` by a number.

    Args:
        method: with hyperparameters as the user gave them.
        rows: training examples, without validation and replay.
        hidden_size: width of the base model's residual stream.
    """
    wanted = method.hyperparameters
    epochs = _epochs(rows) if wanted.n_epochs == "auto" else wanted.n_epochs
    batch = min(rows, _batch_size(rows, epochs) if wanted.batch_size == "auto" else wanted.batch_size)
    multiplier = 1.0 if wanted.learning_rate_multiplier == "auto" else wanted.learning_rate_multiplier
    rate = learning_rate(hidden_size, batch) * multiplier
    if isinstance(method, Supervised):
        return _supervised(method.hyperparameters, epochs, batch, rate, multiplier)
    if isinstance(method, Preference):
        return _preference(method.hyperparameters, epochs, batch, rate, multiplier)
    return _reinforcement(method, epochs, batch, rate, multiplier, rows)


def _supervised(wanted: SupervisedHyperparameters, epochs: int, batch: int, rate: float, multiplier: float) -> Resolved:
    share = REPLAY_SHARE if wanted.replay_share == "auto" else wanted.replay_share
    rate *= FULL_RATE if wanted.weights == "full" else 1
    return Resolved(epochs, batch, rate, multiplier, replay_share=share, weights=wanted.weights, keep=wanted.keep)


def _preference(wanted: PreferenceHyperparameters, epochs: int, batch: int, rate: float, multiplier: float) -> Resolved:
    return Resolved(
        epochs,
        batch,
        rate * PREFERENCE_RATE,
        multiplier,
        beta=BETA if wanted.beta == "auto" else wanted.beta,
        supervised_share=SUPERVISED_SHARE if wanted.supervised_share == "auto" else wanted.supervised_share,
    )


def _reinforcement(
    method: Reinforcement, epochs: int, batch: int, rate: float, multiplier: float, rows: int
) -> Resolved:
    wanted: ReinforcementHyperparameters = method.hyperparameters
    compute = 1.0 if wanted.compute_multiplier == "auto" else wanted.compute_multiplier
    steps_an_epoch = max(1, rows // batch)
    return Resolved(
        epochs,
        batch,
        rate * REINFORCEMENT_RATE,
        multiplier,
        samples=max(2, round(SAMPLES_A_PROMPT * compute)),
        eval_interval=steps_an_epoch if wanted.eval_interval == "auto" else wanted.eval_interval,
        max_answer_tokens=MAX_ANSWER_TOKENS if wanted.max_answer_tokens == "auto" else wanted.max_answer_tokens,
        eval_samples=1 if wanted.eval_samples == "auto" else wanted.eval_samples,
    )


def learning_rate(hidden_size: int, batch_size: int) -> float:
    """LoRA's learning rate for a Llama-like model.

    5e-5 x 10 x (2000 / hidden)^0.781 is the Tinker cookbook's fit (factor 10: LoRA against full fine-tuning),
    times sqrt(batch / 16), the usual scaling of Adam's rate with the batch size.
    """
    return 5e-5 * 10 * (2000 / hidden_size) ** 0.781 * math.sqrt(batch_size / 16)


def _epochs(rows: int) -> int:
    """3, or another number so that 100 to 25,000 examples are seen (OpenAI's documented behaviour)."""
    return max(1, min(max(3, math.ceil(100 / rows)), max(1, 25_000 // rows)))


def _batch_size(rows: int, epochs: int) -> int:
    """0.2 % of the rows, within 4..32 (OpenAI's documented behaviour), and small enough for 100 steps if possible."""
    return max(4, min(32, round(0.002 * rows), rows * epochs // 100))
