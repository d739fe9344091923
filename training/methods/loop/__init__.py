"""Shared by all methods' training loops: progress, guards, and going on after a kill."""
