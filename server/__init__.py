"""The server: OpenAI's API in front of a vLLM engine that hot-loads adapters, and a durable queue of training jobs."""
