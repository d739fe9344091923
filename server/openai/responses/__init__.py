"""OpenAI's Responses API: the conversation kept by the server, answers as lists of items, streams of typed events."""
