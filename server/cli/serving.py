"""`tuneport serve`: settings, the base model on disk, the application and its web server."""

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from adapters.base import BaseModel
from server.cli.client import fault
from server.settings import Settings

logger = logging.getLogger("tuneport")


def serve(given: dict[str, Any]) -> None:
    """Run a server until SIGTERM or Ctrl-C.

    Args:
        given: settings from the command line; they win over variables and tuneport.toml.
    """
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("server").setLevel(logging.INFO)
    settings = _settings(given)
    try:
        base = find_base(settings.model, settings.model_name)
    except (OSError, ValueError) as error:
        _refuse(f"base model {settings.model!r}: {error}")
    if settings.chat_template is not None:
        base = replace(base, chat_template=_template(settings.chat_template))
    _run(settings, base)


def offline_settings(data_dir: Path | None, model: str | None = None) -> Settings:
    """Settings of a command that works on the data folder without a server."""
    given: dict[str, Any] = {"data_dir": data_dir, "model": model}
    wanted = {name: value for name, value in given.items() if value is not None}
    try:
        return Settings(**wanted)
    except ValueError:
        return _settings({"model": "", **wanted})


def _settings(given: dict[str, Any]) -> Settings:
    try:
        return Settings(**given)
    except ValidationError as error:
        _refuse(f"settings: {fault(error)}")
    except ValueError as error:
        _refuse(f"tuneport.toml is no TOML in UTF-8 without a byte order mark: {error}")


def _template(file: Path) -> str:
    from adapters.chat import apart

    try:
        source = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        _refuse(f"settings: chat_template {file}: {error}")
    if fault := apart.fault(source):
        _refuse(f"settings: chat_template {file} is {fault}")
    return source


def find_base(model: str, name: str | None = None) -> BaseModel:
    """Describe a base model: a local folder, or a Hugging Face id, which is fetched once into the hub's cache.

    Raises:
        OSError, ValueError: `model` is neither, or cannot be fetched.
    """
    folder = Path(model)
    if folder.is_dir():
        return BaseModel.read(folder.absolute(), name)
    if model.startswith((".", "/")) or model.count("/") != 1:
        raise FileNotFoundError("no such folder, and no Hugging Face id (org/name) either")
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
    return BaseModel.read(Path(snapshot_download(model, allow_patterns=patterns)), name or model)


def _run(settings: Settings, base: BaseModel) -> None:
    from adapters.database import connect
    from server.app import create_app, sole_owner
    from server.engine.engines import Engines
    from server.engine.vllm import EngineOptions
    from server.errors import DataFolderBusy, InvalidRequest
    from server.http import listen
    from server.state.keys import Keys
    from server.state.tables import migrate

    secret = settings.admin_key.get_secret_value() if settings.admin_key else None
    try:
        with sole_owner(settings.data_dir):  # before we change tables and keys that a running server uses
            database = connect(settings.database())
            migrate(database)
            new = None if settings.no_auth else Keys(database).ensure_admin(secret)
            database.dispose()
    except (DataFolderBusy, InvalidRequest) as error:
        _refuse(str(error))
    scheme = "https" if settings.tls_certificate else "http"
    print(f"Tuneport serves {base.name} on {scheme}://{settings.host}:{settings.port}/v1")
    print(
        f"  data in {settings.data_dir.absolute()}; KV cache {settings.kv_cache() / 1024**3:.1f} GiB, "
        f"{len(os.sched_getaffinity(0))} threads; "
        f"{settings.max_loras} adapters at a time, {settings.max_cpu_loras} in memory"
    )
    if new is not None:
        print(f"  your API key, shown this once: {new}")
    print("  starting the engine; GET /ready answers 200 when it is up", flush=True)
    options = EngineOptions(
        max_loras=settings.max_loras,
        max_cpu_loras=settings.max_cpu_loras,
        max_lora_rank=settings.max_lora_rank,
        max_model_len=settings.max_model_len,
        dtype=settings.dtype,
        kv_cache_bytes=settings.kv_cache(),
        gpu_memory_utilization=settings.gpu_memory_utilization / (1 + settings.max_full_models),
        tool_parser=settings.tool_parser,
    )
    listen.listen(create_app(settings, base, Engines(base, options)), settings)


def _refuse(message: str) -> NoReturn:
    print(f"tuneport: {message}", file=sys.stderr)
    raise SystemExit(2)
