"""Which models can be called, and which of them the engine holds."""
