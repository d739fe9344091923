"""From a request to an answer: the models and which are loaded, the engine's protocol and supervisor, embeddings."""
