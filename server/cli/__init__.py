"""The `tuneport` command. Heavy imports stay inside the commands: `tuneport --help` is instant."""

from typing import Any

import typer
from typer.core import TyperGroup

from server.cli import adapters, commands, data, jobs, keys


class Commands(TyperGroup):
    """All commands. An error of the operating system is printed as one line, without a traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse arguments that are not valid text: they go into URLs, databases and job records."""
        for argument in args:
            if any("\ud800" <= letter <= "\udfff" for letter in argument):
                ctx.fail(f"{argument!r} is no text in UTF-8; type it anew, or rename the file")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # output went to `head`, for example: typer ends quietly
            raise
        except OSError as error:
            said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            typer.echo(f"error: {said}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    help="Fine-tune and serve, as OpenAI does, on your own machines.",
)
app.command()(commands.serve)
app.command()(commands.train)
app.command()(commands.repeat)
app.command("eval")(commands.evaluate)
app.command()(commands.export)
app.add_typer(keys.app, name="keys")
app.add_typer(adapters.app, name="adapters")
app.add_typer(jobs.app, name="jobs")
app.add_typer(data.app, name="data")
