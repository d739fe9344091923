"""OpenAI's Responses API: the server keeps the conversation; answers are lists of items, streams have typed events."""
