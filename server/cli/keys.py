"""`tuneport keys …`: API keys in the data folder's database, without a server."""

from pathlib import Path
from typing import Annotated, Any

import typer

from server.cli.client import DataDir

app = typer.Typer(no_args_is_help=True, help="API keys, in the data folder's database; also while the server runs.")


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose or what for.")],
    admin: Annotated[bool, typer.Option("--admin", help="May also manage adapters and keys.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print its secret, once."""
    key, secret = _keys(data_dir).create(name, admin=admin)
    typer.echo(f"{key.id}  {secret}")


@app.command("list")
def list_keys(data_dir: DataDir = None) -> None:
    """List the keys, without their secrets."""
    for key in _keys(data_dir).list():
        typer.echo(f"{key.id}  {'admin' if key.admin else 'user ':5}  ...{key.hint}  {key.name}")


@app.command("revoke")
def revoke_key(key_id: str, data_dir: DataDir = None) -> None:
    """Revoke a key; running servers refuse it within five seconds."""
    from server.errors import ServerError

    try:
        _keys(data_dir).revoke(key_id)
    except ServerError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def _keys(data_dir: Path | None) -> Any:
    from adapters.database import connect
    from server.cli.serving import offline_settings
    from server.state.keys import Keys
    from server.state.tables import migrate

    settings = offline_settings(data_dir)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = connect(settings.database())
    migrate(database)
    return Keys(database)
