"""The demo: a real base model from a package, fine-tuning tasks, and a job that the user can watch."""
