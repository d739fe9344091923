"""`python -m tests.scripted_server`, with the flags of `tuneport serve`: the server with a scripted engine."""

import gc
from pathlib import Path
from typing import Annotated

import typer
from transformers import AutoTokenizer

from adapters.base import BaseModel
from server.app import create_app
from server.http import listen
from server.settings import Settings
from tests.scripted import ScriptedEngine


def main(
    *,
    model: Annotated[Path, typer.Option()],
    port: Annotated[int, typer.Option()],
    data_dir: Annotated[Path, typer.Option()],
    no_auth: bool = False,
    max_loras: int = 4,
    pause: float = 0.0,
) -> None:
    """Serve until SIGTERM."""
    settings = Settings(model=str(model), port=port, data_dir=data_dir, no_auth=no_auth, max_loras=max_loras)
    engine = ScriptedEngine(tokenizer=AutoTokenizer.from_pretrained(model))
    engine.pause_seconds = pause
    gc.freeze()  # as the real engine does
    listen.listen(create_app(settings, BaseModel.read(model), engine), settings)


if __name__ == "__main__":
    typer.run(main)
