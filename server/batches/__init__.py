"""OpenAI's batches: a file of requests, answered at low priority beside live traffic; they survive restarts."""
