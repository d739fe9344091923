"""OpenAI's API: a router for each resource, with its wire types."""
