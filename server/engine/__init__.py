"""vLLM behind the `Engine` protocol of server/generation.py: the only package, with lora_cpu.py, that imports it."""
