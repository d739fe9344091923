"""The training methods, one per file, on transformers, PEFT and TRL. Only the trainer's process imports them."""
