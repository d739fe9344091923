"""The demo: a real base model from a package, two fine-tuning tasks, and the main job before the user's eyes."""
