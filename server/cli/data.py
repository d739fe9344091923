"""`tuneport data check`: a trainer's checks of a file, before anything is uploaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapters.chat import plain
from server.cli.client import Method

if TYPE_CHECKING:
    from training.data.findings import DataReport

app = typer.Typer(no_args_is_help=True, help="Training data on this machine.")

Rows = Annotated[
    Path,
    typer.Argument(
        help="JSONL: chat, prompt/completion or Alpaca; see docs/fine-tuning.md.", exists=True, dir_okay=False
    ),
]


@app.command()
def check(
    file: Rows,
    validation: Annotated[
        Path | None, typer.Option(help="Rows that must not be in FILE.", exists=True, dir_okay=False)
    ] = None,
    method: Method = "supervised",
    model: Annotated[
        Path | None, typer.Option(help="Base model's folder, to count tokens with.", exists=True, file_okay=False)
    ] = None,
    clean: Annotated[
        Path | None, typer.Option(help="Write a copy without what should not be trained on.", dir_okay=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Format, duplicates, leakage, contradictions, secrets, personal data, lengths. Status 1: a job would refuse it."""
    import os

    from rich.console import Console

    from training.data.check import check as look

    if clean is not None and clean.exists() and clean.samefile(file):
        raise typer.BadParameter("the cleaned copy would overwrite the file itself", param_hint="--clean")
    os.environ.update(TOKENIZERS_PARALLELISM="true", HF_HUB_OFFLINE="1")
    tokenizer, limit = _tokenizer(model) if model else (None, 0)
    notes = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    report: DataReport = look(
        file,
        method,
        validation=validation,
        tokenizer=tokenizer,
        limit=limit,
        clean=clean,
        dropped=lambda line, why: notes.print(f"dropped line {line}: {why}"),
    )
    if json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        from rich.markdown import Markdown

        Console().print(Markdown(report.markdown()))
    if clean is not None:
        notes.print(f"written: {clean}")
    if report.errors:
        raise typer.Exit(1)


def _tokenizer(model: Path) -> tuple[Any, int]:
    from transformers import AutoConfig, AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(model)
        limit = AutoConfig.from_pretrained(model).max_position_embeddings
    except (OSError, ValueError, AttributeError) as error:  # transformers' errors, and a model without a context length
        wanted = f"{model} holds no model with a tokenizer; expected config.json and tokenizer.json, as on Hugging Face"
        raise typer.BadParameter(wanted, param_hint="--model") from error
    tokenizer.chat_template = tokenizer.chat_template or plain.begun(tokenizer, plain.TEMPLATE)
    return tokenizer, limit
