"""OpenAI's API, a router a resource, with its wire types."""
