"""Chat to token ids: the template that an adapter was trained with is the one it is served with."""
