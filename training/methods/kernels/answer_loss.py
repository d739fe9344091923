"""transformers' Trainer with logits and loss computed at answer positions only.

Trainers project every position onto the vocabulary and mask afterwards. On a CPU that was 60 % of a step: 4.9 s against
2.0 s for 8 rows of 76 tokens, half of them answer, on SmolLM2-135M (2 cores, bf16). On a CPU the leading tokens that
all rows of a batch share, mostly the system prompt, are computed once, with gradients through their keys and values.
The loss equals that of TRL's SFTTrainer (tests/invariant/test_answer_loss.py), whose import alone takes 12 s.
"""

from collections import defaultdict
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache
from transformers.modeling_outputs import MoeModelOutputWithPast

from training.methods.generation import attends_to_all
from training.methods.loop.resume import ResumableTrainer
from training.render import IGNORED

CHUNK = 2048  # positions per pass of the head: with 49,152 tokens, their logits are 400 MB in fp32
SHARED_TOKENS_WORTH = 256  # saving fewer tokens is not worth a second pass: 98 of 624 saved no time


class AnswerLossTrainer(ResumableTrainer):
    """Trainer for models whose `forward` is a backbone followed by a head on its last states."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._right: defaultdict[bool, list[torch.Tensor]] = defaultdict(list)  # True: training, False: evaluation

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean cross-entropy in nats over the labelled positions of the whole (accumulated) batch."""
        labels = inputs["labels"][:, 1:]
        trained = labels != IGNORED
        targets = labels[trained]
        causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
        with self.accelerator.autocast():
            shared = _shared_tokens(inputs, trained) if attends_to_all(DynamicCache(config=causal_lm.config)) else 0
            hidden = _hidden_states(causal_lm.base_model, inputs, shared)[:, :-1][trained[:, shared:]]
            total = hidden.new_zeros((), dtype=torch.float32)
            right = hidden.new_zeros((), dtype=torch.long)
            for start in range(0, len(targets), CHUNK):
                part = (causal_lm, hidden[start : start + CHUNK], targets[start : start + CHUNK])
                one = start == 0 and len(targets) <= CHUNK
                loss, hits = _score(*part) if one else checkpoint(_score, *part, use_reentrant=False)
                total, right = total + loss, right + hits
        self._right[model.training].append(right / targets.numel())
        loss = total / (targets.numel() if num_items_in_batch is None else num_items_in_batch)
        return (loss, {"loss": loss}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the share of answer tokens that the model predicts correctly."""
        training = "loss" in logs
        shares = self._right.pop(training, [])
        if shares and (training or "eval_loss" in logs):
            logs["mean_token_accuracy" if training else "eval_mean_token_accuracy"] = torch.stack(shares).mean().item()
        super().log(logs, start_time)


def _shared_tokens(inputs: Any, trained: torch.Tensor) -> int:
    """How many leading untrained tokens all rows share; 0 if computing them once saves too little."""
    ids = inputs["input_ids"]
    if ids.device.type != "cpu":  # not measured on GPUs, where gradient checkpointing allows no cache
        return 0
    same = ((ids == ids[0]) & inputs["attention_mask"].bool()).all(0)[:-1] & ~trained.any(0)
    shared = int(same.long().cumprod(0).sum())
    return shared if shared * (len(ids) - 1) >= SHARED_TOKENS_WORTH else 0


def _hidden_states(backbone: Any, inputs: Any, shared: int) -> torch.Tensor:
    """The last layer's states after the shared tokens, which are computed once: `[rows, tokens - shared, hidden]`."""
    ids, cache = inputs["input_ids"], None
    if shared:
        cache = backbone(input_ids=ids[:1, :shared], use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(ids))
    return backbone(
        input_ids=ids[:, shared:],
        attention_mask=inputs["attention_mask"],
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state


def _score(causal_lm: Any, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = _logits(causal_lm, hidden).float()
    right = (logits.detach().argmax(-1) == targets).sum()
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum"), right


def _logits(causal_lm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """The logits that the model's own `forward` makes of the states: Granite and Cohere scale, Gemma 2 caps them."""
    name, backbone = causal_lm.base_model_prefix, causal_lm.base_model
    setattr(causal_lm, name, _Given(hidden[None]))
    try:
        return type(causal_lm).forward(causal_lm, use_cache=False).logits[0]
    finally:
        setattr(causal_lm, name, backbone)


class _Given(torch.nn.Module):
    """Replaces a backbone whose last states are known."""

    def __init__(self, states: torch.Tensor) -> None:
        super().__init__()
        self._states = states

    def forward(self, *_: Any, **__: Any) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=self._states)  # pyright: ignore[reportArgumentType]
