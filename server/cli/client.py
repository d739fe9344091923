"""Calls to a running server from a terminal: its answer, or its error in a line."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import httpx

LOCAL = "http://127.0.0.1:8000"

Url = Annotated[str, typer.Option(envvar="TUNEPORT_URL", help="The server.")]
Key = Annotated[str, typer.Option(envvar="TUNEPORT_API_KEY", help="An API key.")]


def call(url: str, key: str, method: str, path: str, **content: Any) -> "httpx.Response":
    """A successful answer; anything else ends the command with the server's own message."""
    import httpx

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.request(method, f"{url}{path}", headers=headers, timeout=300, **content)
    except httpx.TransportError as error:
        typer.echo(f"error: no answer from {url}: {error}", err=True)
        raise typer.Exit(1) from error
    if answer.is_success:
        return answer
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"{url} is no Tuneport server ({answer.status_code})"
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)
