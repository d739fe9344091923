"""Tuneport's own API for its operator: adapters, aliases, keys, metrics and health probes."""
