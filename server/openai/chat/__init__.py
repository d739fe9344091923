"""Endpoints that generate text, and what they share: answering.py's way from a request to a stream of deltas."""
