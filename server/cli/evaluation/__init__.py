"""What `tuneport eval` does."""
