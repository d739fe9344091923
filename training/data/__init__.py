"""Training data: reading and checking rows line by line, findings, and a cleaned copy."""
