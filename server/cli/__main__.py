"""`python -m server.cli`: the `tuneport` command without its script."""

from server.cli import app

app()
