"""TRL as its users run it: one process, `SFTTrainer`, LoRA; prints when the first step began, and each step's figures.

`python -m bench.plain_trl default|best ORDER.json`. `default`: SFTConfig's defaults, on the CPU. `best`: what its
documentation and our trials recommend: bf16 weights, no gradient checkpointing, plain attention, grouped lengths.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def main(kind: str, order: dict[str, Any]) -> None:
    """Train, and print the record as the last line."""
    sys.modules["bitsandbytes"] = None  # pyright: ignore[reportArgumentType] (installed for tests; it slows the start)
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    times: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            times.append(time.time())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            times.append(time.time())

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if logs and "loss" in logs:
                losses.append(logs["loss"])

    best: dict[str, Any] = {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}
    config = SFTConfig(
        output_dir=order["output"],
        num_train_epochs=1,
        per_device_train_batch_size=order["batch_size"],
        learning_rate=order["learning_rate"],
        warmup_steps=order["warmup_steps"],
        seed=order["seed"],
        use_cpu=True,  # else SFTConfig refuses its own default of bf16 here
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        **(best if kind == "best" else {}),
    )
    model: Any = order["model"]
    if kind == "best":
        model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, attn_implementation="eager")
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=load_dataset("json", data_files=order["rows"], split="train", cache_dir=order["output"]),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[Clock()],
    )
    trainer.train()
    tokens = sum(len(row["input_ids"]) for row in trainer.train_dataset)  # pyright: ignore
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"times": times, "losses": losses, "tokens": tokens, "peak_bytes": peak}))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
