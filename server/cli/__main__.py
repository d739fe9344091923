"""`python -m server.cli`: the `tuneport` command, if its script is not installed."""

from server.cli import app

app()
