"""`/v1/chat/completions`, and the fields, messages, tools and formats that completions and responses share with it."""
