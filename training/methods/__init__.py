"""How a model is trained: one method a file, on transformers, PEFT and TRL. Imported by the trainer's process only."""
