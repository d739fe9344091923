"""`tuneport adapters …`: the admin API of a running server, from a terminal."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from server.cli.client import LOCAL, Url, call, given, once

app = typer.Typer(no_args_is_help=True, help="Adapters and aliases of a running server.")

Name = Annotated[str, typer.Argument(help="The adapter's name, ft:…", callback=given)]
AliasName = Annotated[str, typer.Argument(help="The alias's name, ft:…", callback=given)]
Key = Annotated[str, typer.Option(envvar="TUNEPORT_ADMIN_KEY", help="An admin key.")]


@app.command("list")
def list_adapters(url: Url = LOCAL, key: Key = "") -> None:
    """List all adapters: state, rank, size, name, and the aliases that point at them."""
    for adapter in _call(url, key, "GET", "")["data"]:
        _print(adapter)


@app.command()
def add(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="Folder that PEFT's save_pretrained wrote.", exists=True)],
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Upload an adapter and register it."""
    from adapters.files.validate import PICKLES
    from adapters.store import taken_files

    files: list[tuple[str, Any]] = [
        ("file", (file, (folder / file).open("rb"))) for file in taken_files(folder) if (folder / file).is_file()
    ]
    if not files:
        raise typer.BadParameter(
            f"{folder} holds no adapter; name the folder that PEFT's save_pretrained wrote, unpacked"
        )
    files += [("file", (file, b"")) for file in PICKLES if (folder / file).exists()]  # empty: the refusal names them
    _print(_call(url, key, "POST", "", data={"name": name}, files=files))


@app.command()
def show(name: Name, url: Url = LOCAL, key: Key = "") -> None:
    """Show one adapter as JSON."""
    import json

    typer.echo(json.dumps(_call(url, key, "GET", _path(name)), indent=2))


@app.command()
def load(name: Name, url: Url = LOCAL, key: Key = "") -> None:
    """Load an adapter before its first request."""
    _print(_call(url, key, "POST", f"{_path(name)}/load"))


@app.command()
def unload(name: Name, url: Url = LOCAL, key: Key = "") -> None:
    """Free an adapter's memory once its running requests have ended."""
    _print(_call(url, key, "POST", f"{_path(name)}/unload"))


@app.command()
def pin(name: Name, url: Url = LOCAL, key: Key = "") -> None:
    """Load an adapter and keep it in memory."""
    _print(_call(url, key, "POST", f"{_path(name)}/pin"))


@app.command()
def unpin(name: Name, url: Url = LOCAL, key: Key = "") -> None:
    """Let an adapter be evicted again."""
    _print(_call(url, key, "POST", f"{_path(name)}/unpin"))


@app.command()
def remove(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Also if an alias points at it.")] = False,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Remove an adapter once its running requests have ended."""
    _call(url, key, "DELETE", f"{_path(name)}?force={str(force).lower()}")


@app.command()
def aliases(url: Url = LOCAL, key: Key = "") -> None:
    """List all aliases and where they point."""
    for one in _call(url, key, "GET", "/aliases")["data"]:
        _print_alias(one)


@app.command()
def alias(
    name: AliasName,
    versions: Annotated[list[str], typer.Argument(help="VERSION, or VERSION=WEIGHT for each of several.")],
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Make or move an alias: `alias ft:acme v2`, or a canary: `alias ft:acme v1=90 v2=10`."""
    weights: dict[str, int] = {}
    for label, weight in once(versions).items():
        if weight and not weight.isdecimal():
            raise typer.BadParameter(f"{label}={weight}: the weight is no whole number")
        weights[label] = int(weight or 100)
    _print_alias(_call(url, key, "PUT", f"/aliases{_path(name)}", json={"weights": weights}))


@app.command()
def rollback(name: AliasName, url: Url = LOCAL, key: Key = "") -> None:
    """Point an alias where it pointed before."""
    _print_alias(_call(url, key, "POST", f"/aliases{_path(name)}/rollback"))


@app.command()
def unalias(name: AliasName, url: Url = LOCAL, key: Key = "") -> None:
    """Remove an alias; its versions stay."""
    _call(url, key, "DELETE", f"/aliases{_path(name)}")


def _path(name: str) -> str:
    return "/" + quote(name, safe="/:")


def _call(url: str, key: str, method: str, path: str, **content: Any) -> dict[str, Any]:
    return call(url, key, method, f"/admin/adapters{path}", **content)


def _print(adapter: dict[str, Any]) -> None:
    notes = [*(["pinned"] if adapter["pinned"] else []), *(f"<- {alias}" for alias in adapter["aliases"])]
    size = f"{adapter['bytes'] / 1024**2:.1f} MB"
    typer.echo(
        "  ".join([f"{adapter['state']:10}", f"rank {adapter['rank']:<3}", f"{size:>9}", adapter["name"], *notes])
    )
    if adapter["error"]:
        typer.echo(f"            {adapter['error']}")


def _print_alias(alias: dict[str, Any]) -> None:
    targets = ", ".join(f"{version}={weight}" for version, weight in alias["weights"].items())
    typer.echo(f"{alias['name']} -> {targets}")
