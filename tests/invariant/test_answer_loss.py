"""The loss at answer positions is TRL's loss, in value and in gradient, whatever the accumulation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq
from trl import SFTConfig, SFTTrainer

from training.methods.kernels.answer_loss import AnswerLossTrainer

ROWS = [
    {"input_ids": list(range(10, 30 + n)), "labels": [-100] * (8 + n) + list(range(18 + n, 30 + n))} for n in range(4)
]
PROMPT = list(range(10, 110))
SHARING = [
    {"input_ids": [*PROMPT, *range(n, n + 5)], "labels": [-100] * (len(PROMPT) + 1) + list(range(n + 1, n + 5))}
    for n in (200, 300, 400, 500)
]


def gradients(
    trainer_class: Any, tiny: Path, tokenizer: Any, tmp_path: Path, rows: list[dict[str, list[int]]]
) -> tuple[float, torch.Tensor, int]:
    """The loss, its gradients, and how many tokens were computed."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    peft_model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    tokens: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda _, args: tokens.append(args[0].shape[:2].numel()))
    extra: dict[str, Any] = {} if trainer_class is SFTTrainer else {"data_collator": DataCollatorForSeq2Seq(tokenizer)}
    trainer = trainer_class(
        model=peft_model,
        args=SFTConfig(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        **extra,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    peft_model.train()
    loss = trainer.compute_loss(peft_model, batch)
    loss.backward()
    grads = torch.cat([p.grad.flatten() for p in peft_model.parameters() if p.grad is not None])
    return loss.item(), grads, sum(tokens)


@pytest.mark.parametrize(("rows", "tokens"), [(ROWS, 4 * 23), (SHARING, len(PROMPT) + 4 * 5)])
def test_value_and_gradient_are_trls(
    tiny: Path, tokenizer: Any, tmp_path: Path, rows: list[dict[str, list[int]]], tokens: int
) -> None:
    torch.manual_seed(1)
    theirs, their_gradients, _ = gradients(SFTTrainer, tiny, tokenizer, tmp_path, rows)
    torch.manual_seed(1)
    ours, our_gradients, computed = gradients(AnswerLossTrainer, tiny, tokenizer, tmp_path, rows)
    assert computed == tokens
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert torch.allclose(our_gradients, their_gradients, atol=1e-5)
    assert our_gradients.abs().max() > 1e-4


def test_accumulated_halves_are_the_whole_batch(tiny: Path, tokenizer: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    peft_model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    rows = [{"input_ids": list(range(10, 30)), "labels": [-100] * n + list(range(10 + n, 30))} for n in (4, 8, 12, 16)]
    trainer = AnswerLossTrainer(
        model=peft_model,
        args=SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none"),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    batch = trainer.data_collator(rows)
    count = (batch["labels"][:, 1:] != -100).sum()
    whole = trainer.compute_loss(peft_model, dict(batch), num_items_in_batch=count)
    halves = [
        trainer.compute_loss(peft_model, {k: v[part] for k, v in batch.items()}, num_items_in_batch=count)
        for part in (slice(0, 2), slice(2, 4))
    ]
    assert sum(loss.item() for loss in halves) == pytest.approx(whole.item(), rel=1e-5)
