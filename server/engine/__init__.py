"""vLLM behind the `Engine` protocol of server/inference/engine.py: the only package that imports it."""
