"""Shared by commands: calls to a running server, and checks of arguments, whose errors are one line."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training.kinds import KINDS, Kind

if TYPE_CHECKING:
    import httpx
    from pydantic import ValidationError

LOCAL = "http://127.0.0.1:8000"

Url = Annotated[str, typer.Option(envvar="TUNEPORT_URL", help="The server.")]
DataDir = Annotated[Path | None, typer.Option(help="Database, files, jobs and adapters.  [default: var/tuneport]")]
Key = Annotated[str, typer.Option(envvar="TUNEPORT_API_KEY", help="An API key.")]


class NoAnswer(Exception):
    """A server gave no usable answer; the message says why."""


def call(url: str, key: str, method: str, path: str, **content: Any) -> dict[str, Any]:
    """The JSON object that a server answers with; an error ends the command with the server's message."""
    try:
        return content_of(_ask(url, key, method, path, **content), url)
    except NoAnswer as error:
        raise _end(error) from error


def call_text(url: str, key: str, path: str) -> str:
    """The text that a server answers with; an error ends the command with the server's message."""
    try:
        answer = _ask(url, key, "GET", path)
        if not answer.is_success:
            content_of(answer, url)
    except NoAnswer as error:
        raise _end(error) from error
    return answer.text


def content_of(answer: "httpx.Response", url: str) -> dict[str, Any]:
    """The object in a successful answer.

    Raises:
        NoAnswer: the server refused (its message is kept), or is no Tuneport server.
    """
    try:
        content = answer.json()
        if answer.is_success and isinstance(content, dict):
            return content
        message = content["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"{url} is no Tuneport server ({answer.status_code})"
    raise NoAnswer(message)


def _ask(url: str, key: str, method: str, path: str, **content: Any) -> "httpx.Response":
    import httpx

    try:
        return httpx.request(method, f"{url}{path}", headers=authorization(key), timeout=300, **content)
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise NoAnswer(f"no answer from {url}: {error}") from error


def _end(error: NoAnswer) -> typer.Exit:
    typer.echo(f"error: {error}", err=True)
    return typer.Exit(1)


def authorization(key: str) -> dict[str, str]:
    """The Authorization header for a key; none without a key."""
    if not (key.isascii() and key.isprintable()):
        raise typer.BadParameter("the key holds characters that no key has; copy it again", param_hint="--key")
    return {"Authorization": f"Bearer {key}"} if key else {}


def given(value: str) -> str:
    """A name or id from the command line; refused if empty, which is most often an unset shell variable."""
    if not value:
        raise typer.BadParameter("it is empty")
    return value


def once(pairs: list[str]) -> dict[str, str]:
    """The `name=value` pairs of a list (or `name`, without a value) as a dict; a repeated name is refused."""
    values: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name in values:
            raise typer.BadParameter(f"{name!r} is given twice")
        values[name] = value
    return values


def known_kind(typed: str) -> str:
    """A kind of training from the command line; others are refused."""
    if typed not in KINDS:
        raise typer.BadParameter(f"{typed!r} is none of {', '.join(KINDS)}")
    return typed


Method = Annotated[
    Kind, typer.Option(parser=known_kind, metavar="|".join(KINDS), help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.")
]


def read_json(path: Path) -> Any:
    """The content of a JSON file from the command line."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{path} is not JSON in UTF-8: {error}") from error


def fault(error: "ValidationError", content: Any = None) -> str:
    """What is wrong with `content`, in JSON's terms rather than pydantic's."""
    from server.http.wording import told

    return told([{**one, "loc": ("body", *one["loc"])} for one in error.errors()], content)[0]
