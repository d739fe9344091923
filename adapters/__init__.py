"""Adapters: names, manifests, validation, an immutable store and the registry. No HTTP, no vllm, no torch at import."""
