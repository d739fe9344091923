"""The checks of a file, a class each; each sees every row once."""
