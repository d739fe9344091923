"""Tuneport's own API for its operator: adapters and keys."""
