"""Benchmarks: Tuneport beside what a user would run instead, in the same run, as ratios."""
