"""Training data: rows read and checked line by line, what is suspicious in them, and a cleaned copy."""
