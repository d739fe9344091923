"""`tuneport serve`, `train`, `eval` and `export`: their options. What they do is imported when they are called."""

from pathlib import Path
from typing import Annotated

import typer

from server.cli.client import LOCAL, DataDir, Key, Method, Url, once


def serve(
    model: Annotated[str | None, typer.Option(help="Base model: a local folder, or a Hugging Face id.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.  [default: 8000]")] = None,
    data_dir: DataDir = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Take requests without a key; on loopback only.")] = False,
    max_loras: Annotated[int | None, typer.Option(help="Adapters in one batch.  [default: 4]")] = None,
    max_lora_rank: Annotated[int | None, typer.Option(help="Highest rank served.  [default: 16]")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Context in tokens.  [default: the model's own]")] = None,
    adapter_root: Annotated[
        list[Path] | None, typer.Option(help="Folder that POST /admin/adapters may take paths from; repeat for more.")
    ] = None,
) -> None:
    """Serve a base model, its adapters and the fine-tuning API. All settings: docs/reference.md."""
    from server.cli.serving import serve as run

    given = {
        "model": model,
        "host": host,
        "port": port,
        "data_dir": data_dir,
        "no_auth": no_auth or None,
        "max_loras": max_loras,
        "max_lora_rank": max_lora_rank,
        "max_model_len": max_model_len,
        "adapter_root": adapter_root or None,
    }
    run({name: value for name, value in given.items() if value is not None})


def train(
    data: Annotated[
        Path, typer.Argument(help="JSONL: chat, prompt/completion, Alpaca or preferences.", exists=True, dir_okay=False)
    ],
    model: Annotated[str, typer.Option(help="Base model: a local folder, or a Hugging Face id.")],
    suffix: Annotated[str, typer.Option(help="Names the result.")] = "model",
    validation: Annotated[
        Path | None, typer.Option(help="JSONL; default: a tenth of the data.", exists=True, dir_okay=False)
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the job's directory.")] = Path("var/training"),
    method: Method = "supervised",
    grader: Annotated[
        Path | None, typer.Option(help="OpenAI's grader as JSON, for reinforcement.", exists=True, dir_okay=False)
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A hyperparameter, as n_epochs=2; repeat for more.")
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(help="Jinja file; default: the base's own, or a plain one.", exists=True)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of split, order and initial weights.", min=0, max=2**31 - 1)] = 0,
) -> None:
    """Train an adapter in the foreground, with the server's trainer."""
    from adapters.names import MAX_SUFFIX_LENGTH
    from server.cli.training import train as run

    if len(suffix) > MAX_SUFFIX_LENGTH:
        raise typer.BadParameter(f"it has {len(suffix)} characters; at most {MAX_SUFFIX_LENGTH}", param_hint="--suffix")
    wanted = once(set_ or [])
    raise typer.Exit(run(data, model, suffix, validation, output, method, grader, chat_template, wanted, seed))


def repeat(
    job: Annotated[Path, typer.Argument(help="The job's directory, as jobs/ftjob-… in the data folder.", exists=True)],
    output: Annotated[Path, typer.Option(help="Folder for the new job's directory.")] = Path("var/training"),
) -> None:
    """Train once more as a job did: its base, files, method, graders, template and seed."""
    from server.cli.training import repeat as run

    raise typer.Exit(run(job, output))


def evaluate(
    model: Annotated[str, typer.Argument(help="The model to judge, ft:… or another.")],
    data: Annotated[
        Path, typer.Argument(help="Held-out rows, in the form of training data.", exists=True, dir_okay=False)
    ],
    against: Annotated[str | None, typer.Option(help="The model to compare with; default: the server's base.")] = None,
    graders: Annotated[
        Path | None,
        typer.Option(
            help="OpenAI's grader as JSON, or a list; default: similarity, exact match.", exists=True, dir_okay=False
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 512,
    json: Annotated[bool, typer.Option("--json", help="The figures as JSON.")] = False,
    url: Url = LOCAL,
    key: Key = "",
    against_url: Annotated[
        str | None, typer.Option(help="Where the other model is served, if elsewhere: any endpoint of OpenAI's shape.")
    ] = None,
    against_key: Annotated[str, typer.Option(envvar="OPENAI_API_KEY", help="A key for --against-url.")] = "",
    answers: Annotated[
        Path | None,
        typer.Option(help="Keep answers in this file, and take those that are there: goes on where it stopped."),
    ] = None,
) -> None:
    """Compare two served models on held-out rows: difference, 95 % interval, smallest detectable difference."""
    from server.cli.evaluation.answers import Endpoint
    from server.cli.evaluation.comparison import evaluate as run

    if against_url is not None and against is None:
        raise typer.BadParameter("name the model that is served there", param_hint="--against")
    here = Endpoint(url, key)
    there = here if against_url is None else Endpoint(against_url, against_key, ours=False)
    raise typer.Exit(run(model, against, data, graders, max_tokens, here, there, answers, json))


def export(
    model: Annotated[str, typer.Argument(help="A version's ft: name, an adapter's folder, or the base's name.")],
    output: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
    format: Annotated[str, typer.Option(help="merged: for transformers and vLLM. onnx: for ONNX Runtime.")] = "merged",
    base: Annotated[str | None, typer.Option(help="Base model.  [default: the setting `model`]")] = None,
    data_dir: DataDir = None,
) -> None:
    """Write a fine-tuned model for other runtimes, its adapter merged into the base."""
    from server.cli.export import export as run

    raise typer.Exit(run(model, output, format, base, data_dir))
