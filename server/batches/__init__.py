"""OpenAI's batches: a file of requests, answered at low priority beside live traffic, over restarts if need be."""
