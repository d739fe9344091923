"""Chat to token ids. An adapter is served with the template that it was trained with."""
