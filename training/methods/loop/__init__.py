"""What every method's training loop has: progress, guards, and going on after a kill."""
