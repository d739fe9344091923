"""Benchmarks: Tuneport side by side with the thing a user would run instead, in one run, as ratios."""
