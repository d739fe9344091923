"""vLLM behind the `Engine` protocol of server/inference/engine.py; no other package imports vLLM."""
