"""`tuneport export`: find the adapter and its base, and have `python -m training.export` write the model."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import typer
from sqlalchemy.exc import SQLAlchemyError

from adapters.database import connect
from adapters.errors import AdapterNotFound
from adapters.registry import locate
from server.cli.serving import find_base, offline_settings

FORMATS = ("merged", "onnx")


def export(model: str, output: Path, kind: str, base: str | None, data_dir: Path | None) -> int:
    """Write the model to `output`; return the exit status."""
    if kind not in FORMATS:
        return _refuse(f"--format is {kind!r}; expected one of {', '.join(FORMATS)}")
    if output.exists():
        return _refuse(f"{output} exists already; name a folder that does not")
    if kind == "onnx" and find_spec("onnxscript") is None:
        return _refuse("exporting to ONNX is not installed here: install tuneport[onnx]")
    settings = offline_settings(data_dir, base)
    if not settings.model:
        return _refuse("name the base model with --base, or by the setting `model`")
    try:
        described = find_base(settings.model, settings.model_name)
        if model == described.name:
            adapter = ""
        elif Path(model).is_dir():
            adapter = str(Path(model).absolute())
        else:
            adapter = str(locate(connect(settings.database()), settings.data_dir / "adapters", model))
    except AdapterNotFound:
        return _refuse(f"no version {model!r} is registered in {settings.data_dir}, and it is no folder")
    except SQLAlchemyError as error:
        return _refuse(f"the database of {settings.data_dir} cannot be read: {getattr(error, 'orig', error)}")
    except (OSError, ValueError) as error:
        return _refuse(str(error))
    command = [sys.executable, "-P", "-m", "training.export"]
    command += [kind, str(described.path), adapter, str(output.absolute())]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    if ended.returncode:
        return _refuse(f"the export failed:\n{ended.stderr[-3000:]}")
    typer.echo(f"written: {output}")
    return 0


def _refuse(message: str) -> int:
    typer.echo(f"error: {message}", err=True)
    return 1
