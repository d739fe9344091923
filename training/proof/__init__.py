"""The proof: base against fine-tuned on rows that the training never saw, what was forgotten, and a report."""
