"""Training: `python -m training JOB.json` in, a directory of results out. No HTTP, no vllm."""
