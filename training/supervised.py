"""Supervised LoRA with TRL's SFTTrainer and PEFT.

We hand TRL token ids and labels of our own making (training/render.py); it leaves them alone. On a CPU with bf16
instructions the frozen weights are kept in bf16 and the adapter in fp32: 1.8x the tokens a second of TRL's default
there. Rows are grouped by length rather than packed: packing needs FlashAttention to keep rows apart.
"""

import json
import random
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, EarlyStoppingCallback, PreTrainedTokenizerBase, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig

from adapters.manifest import Manifest
from training import defaults, replay
from training.answer_loss import AnswerLossTrainer
from training.defaults import Resolved
from training.job import JobDirectory, Result, TrainingJob
from training.progress import Progress
from training.render import Row

EAGER_ATTENTION_TOKENS = 512  # on a CPU, plain attention up to here: 2.3 s against 2.8 s a step at 76 tokens
MAX_ROWS_A_PASS = 8  # larger batches accumulate: memory stays that of 8 rows


def train(
    job: TrainingJob,
    directory: JobDirectory,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[Row],
    validation: list[Row],
    hyperparameters: Resolved,
) -> Result:
    """Train, or go on from the last checkpoint; leave the best checkpoint's adapter in `directory.adapter`.

    Args:
        rows, validation: rendered examples.
        hyperparameters: without any `auto`.

    Raises:
        TrainingDiverged: the loss became no number.
    """
    set_seed(job.seed)
    bf16 = bf16_supported()
    longest = max(len(row["input_ids"]) for row in (*rows, *validation))
    model = AutoModelForCausalLM.from_pretrained(
        job.base_path,
        dtype=torch.bfloat16 if bf16 else torch.float32,
        attn_implementation="sdpa" if torch.cuda.is_available() or longest > EAGER_ATTENTION_TOKENS else "eager",
    )
    rows = rows + _replay_rows(job, directory, model, tokenizer, len(rows), hyperparameters.replay_share)
    random.Random(job.seed).shuffle(rows)
    lora = LoraConfig(
        r=defaults.LORA_RANK,
        lora_alpha=defaults.LORA_ALPHA,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, lora, autocast_adapter_dtype=True)
    progress = Progress(directory)
    trainer = AnswerLossTrainer(
        model=peft_model,
        args=_arguments(job, directory, hyperparameters, len(rows), bf16),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(validation),
        processing_class=tokenizer,
        callbacks=[progress, EarlyStoppingCallback(defaults.EARLY_STOPPING_PATIENCE)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    directory.checkpoints.mkdir(exist_ok=True)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(directory.checkpoints)))
    best = Path(trainer.state.best_model_checkpoint or "checkpoint-0").name
    peft_model.save_pretrained(str(directory.adapter), safe_serialization=True)
    checkpoints = progress.checkpoints()
    for adapter in (directory.adapter, *(directory.path / checkpoint.directory for checkpoint in checkpoints)):
        _describe(adapter, job, tokenizer)
    if trainer.state.global_step < trainer.state.max_steps:
        directory.event(f"Stopped early at step {trainer.state.global_step}: the validation loss no longer falls")
    return Result(
        trained_tokens=progress.trained_tokens,
        best_step=int(best.rsplit("-", 1)[1]),
        checkpoints=checkpoints,
        hyperparameters=hyperparameters.as_hyperparameters(),
    )


def bf16_supported() -> bool:
    """Whether bf16 arithmetic is faster than fp32 here: a GPU that has it, or AVX512-BF16 or AMX on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _replay_rows(
    job: TrainingJob,
    directory: JobDirectory,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    task_rows: int,
    share: float,
) -> list[Row]:
    if not share:
        return []
    rows = replay.self_answers(model, tokenizer, replay.rows_for(share, task_rows), job.seed)
    directory.event(f"Replay against forgetting: {len(rows)} of the base's own answers mixed into {task_rows} rows")
    return rows


def _arguments(
    job: TrainingJob, directory: JobDirectory, hyperparameters: Resolved, rows: int, bf16: bool
) -> SFTConfig:
    batch = hyperparameters.batch_size
    a_pass = max(size for size in range(1, MAX_ROWS_A_PASS + 1) if batch % size == 0)
    on_cpu = not torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(directory.checkpoints),
        seed=job.seed,
        data_seed=job.seed,
        num_train_epochs=hyperparameters.n_epochs,
        per_device_train_batch_size=a_pass,
        gradient_accumulation_steps=batch // a_pass,
        per_device_eval_batch_size=MAX_ROWS_A_PASS,
        learning_rate=hyperparameters.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=min(10, rows * hyperparameters.n_epochs // batch // 10),
        weight_decay=0.0,
        bf16=bf16,
        use_cpu=on_cpu,
        gradient_checkpointing=not on_cpu,  # on a CPU memory is there and time is not: 19 s against 28-37 s
        max_length=None,
        packing=False,
        train_sampling_strategy="group_by_length",
        logging_steps=1,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=3,  # as many as OpenAI keeps
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        report_to="none",
        disable_tqdm=True,
    )


def _describe(adapter: Path, job: TrainingJob, tokenizer: PreTrainedTokenizerBase) -> None:
    """Put the base's served name where PEFT wrote a path of this machine, and the manifest beside the weights."""
    config = adapter / "adapter_config.json"
    content = json.loads(config.read_bytes()) | {"base_model_name_or_path": job.base_model}
    config.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")
    template = tokenizer.chat_template
    Manifest(
        base_model=job.base_model, chat_template=template if isinstance(template, str) else None, job_id=job.id
    ).write(adapter)
