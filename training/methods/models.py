"""The base model in memory, ready to train: its number format, its attention, its adapter.

On a CPU with bf16 instructions, frozen weights are bf16 and the adapter is fp32: 1.8 times the tokens a second of
TRL's default there.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig, PreTrainedTokenizerBase

from adapters.chat import ending
from adapters.manifest import Manifest
from training import defaults
from training.defaults import Resolved
from training.job import GPU_SHARE_VARIABLE, TrainingJob

EAGER_ATTENTION_TOKENS = 512  # on a CPU, plain attention up to this length: 2.3 s a step at 76 tokens, against 2.8 s
MAX_ROWS_A_PASS = 8  # larger batches accumulate gradients, to limit memory


def bf16_supported() -> bool:
    """Whether bf16 is faster than fp32 here: on a GPU that supports it, or a CPU with AVX512-BF16 or AMX."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def device() -> torch.device:
    """The device of a trainer's models: the GPU that it sees, else the CPU."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def load_base(job: TrainingJob, longest: int, weights: str = "lora") -> Any:
    """The base's transformers model, on its device.

    Args:
        longest: tokens of the longest row.
        weights: "full": the weights themselves are trained, so they are kept in fp32, since a step's change is too
            small for bf16. "qlora": in 4 bits, as in "QLoRA" (Dettmers et al. 2023): NF4, with quantised scales,
            computed in bf16.
    """
    if torch.cuda.is_available():  # so that too little memory ends this job, not the server
        torch.cuda.set_per_process_memory_fraction(float(os.environ.get(GPU_SHARE_VARIABLE, "1")))
    model: Any = AutoModelForCausalLM.from_pretrained(
        job.base_path,
        dtype=torch.float32 if weights == "full" or not bf16_supported() else torch.bfloat16,
        quantization_config=_four_bits() if weights == "qlora" else None,
        attn_implementation="sdpa" if torch.cuda.is_available() or longest > EAGER_ATTENTION_TOKENS else "eager",
    )
    # Ignore the base's sampling defaults (such as a repetition penalty), as serving does.
    marks = ("bos_token_id", "eos_token_id", "pad_token_id")
    model.generation_config = GenerationConfig(**{mark: getattr(model.generation_config, mark) for mark in marks})
    return model if weights == "qlora" else model.to(device())  # quantised weights are there already


def _four_bits() -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if bf16_supported() else torch.float32,
    )


def with_adapter(model: Any, job: TrainingJob) -> Any:
    """The model with a new adapter, or with the parent's to continue."""
    from peft import LoraConfig, PeftModel, get_peft_model

    from training.methods.kernels import lora_layer

    config: Any
    if job.parent is None:
        config = LoraConfig(
            r=defaults.LORA_RANK,
            lora_alpha=defaults.LORA_ALPHA,
            lora_dropout=0.0,
            target_modules=targets(model),
            task_type="CAUSAL_LM",
        )
    else:
        config = LoraConfig.from_pretrained(str(job.parent))
    if not torch.cuda.is_available() and not getattr(model, "is_quantized", False):
        lora_layer.use_in(config)
    if job.parent is None:
        return get_peft_model(model, config, autocast_adapter_dtype=True)
    return PeftModel.from_pretrained(model, str(job.parent), config=config, is_trainable=True)


def targets(model: Any) -> str | list[str]:
    """The layers for an adapter: all linear ones; with experts only attention's, since no others are served."""
    linear = [name.split(".") for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    if not any("experts" in name.split(".") for name, _ in model.named_modules()):
        return "all-linear"
    return sorted({name[-1] for name in linear if any("attn" in part or "attention" in part for part in name)})


def as_served(job: TrainingJob, longest: int, adapter: Path) -> Any:
    """The adapter on an unquantised base, as it is served, for the proof; training may have used a 4-bit one."""
    from peft import PeftModel

    return PeftModel.from_pretrained(load_base(job, longest), str(adapter))


def arguments(job: TrainingJob, output: Path, hyperparameters: Resolved, *, evaluate_every: int) -> dict[str, Any]:
    """TrainingArguments that all methods share.

    Args:
        evaluate_every: steps between evaluations, each with a checkpoint. Steps rather than epochs: at an epoch's end,
            transformers evaluates even a run that is being paused, and may save before it evaluates.
    """
    batch = hyperparameters.batch_size
    a_pass = max(size for size in range(1, MAX_ROWS_A_PASS + 1) if batch % size == 0)
    on_cpu = not torch.cuda.is_available()
    return {
        "output_dir": str(output),
        "seed": job.seed,
        "data_seed": job.seed,
        "num_train_epochs": hyperparameters.n_epochs,
        "per_device_train_batch_size": a_pass,
        "gradient_accumulation_steps": batch // a_pass,
        "learning_rate": hyperparameters.learning_rate,
        "lr_scheduler_type": "linear",
        "weight_decay": 0.0,
        "bf16": bf16_supported(),
        "use_cpu": on_cpu,
        "gradient_checkpointing": not on_cpu,  # a CPU has the memory: 19 s a step, against 28-37 s
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": evaluate_every,
        "save_strategy": "steps",
        "save_steps": evaluate_every,
        "save_total_limit": None,  # progress.py deletes checkpoints
        "load_best_model_at_end": True,
        "restore_callback_states_from_checkpoint": True,  # early stopping's counter
        "report_to": ["wandb"] if job.wandb else "none",
        "run_name": (job.wandb.name if job.wandb else None) or job.id,
        "disable_tqdm": True,
        "dataloader_pin_memory": not on_cpu,
    }


def steps_an_epoch(rows: int, hyperparameters: Resolved) -> int:
    """Optimizer steps in an epoch; the last batch may be smaller."""
    return math.ceil(rows / hyperparameters.batch_size)


def warmup_steps(rows: int, hyperparameters: Resolved) -> int:
    """A tenth of all steps, but at most ten."""
    return min(10, rows * hyperparameters.n_epochs // hyperparameters.batch_size // 10)


def write_manifest(adapter: Path, job: TrainingJob, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the manifest, and replace the local path that PEFT wrote as base by its served name."""
    config = adapter / "adapter_config.json"
    if config.exists():  # a full model has none
        content = json.loads(config.read_bytes()) | {"base_model_name_or_path": job.base_model}
        config.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")
    inherited = Manifest.read(job.parent) if job.parent else Manifest()
    template = tokenizer.chat_template
    inherited.model_copy(
        update={
            "base_model": job.base_model,
            "chat_template": template if isinstance(template, str) else None,
            "stop_token_ids": list(ending.ids(tokenizer, others=ending.of_base(job.base_path))),
            "job_id": job.id,
        }
    ).write(adapter)
