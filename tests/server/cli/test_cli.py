"""The command line as a user types it."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from server.cli import app
from server.cli.client import LOCAL
from server.settings import Settings
from tests import processes


def tuneport(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server.cli", *arguments]
    return processes.run(command, cwd=cwd, limit_seconds=100)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["serve", "--model", "/nothing/there"], "no such folder"),
        (["serve", "--model", "."], "config.json"),
        (["serve"], "Missing required parameter: 'model'"),
        (["serve", "--model", ".", "--no-auth", "--host", "0.0.0.0"], "open the server to the network"),  # noqa: S104
        (["serve", "--model", ".", "--max-lora-rank", "17"], "max_lora_rank is 17"),
    ],
)
def test_a_server_that_cannot_start_says_why(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    run = tuneport(*arguments, cwd=tmp_path)
    assert run.returncode == 2
    assert complaint in run.stderr
    assert "Traceback" not in run.stderr


def test_the_defaults_that_help_names_are_the_settings() -> None:
    """They are written there once more: pydantic takes half a second to read, and `--help` is instant."""
    commands: Any = get_command(app)
    options = {option.name: option.help for option in commands.commands["serve"].params}
    fields = Settings.model_fields
    for name in ("host", "port", "data_dir", "max_loras", "max_lora_rank"):
        assert options[name].endswith(f"[default: {fields[name].default}]")
    assert f"http://{fields['host'].default}:{fields['port'].default}" == LOCAL


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"model = 1\xe9", "tuneport.toml is no TOML in UTF-8"),
        (b'\xef\xbb\xbfmodel = "x"', "without a byte order mark"),
        (b"model = ", "Invalid value (at end of document)"),
        (b'max_loras = "two"', "Invalid value for 'max_loras': expected an integer, got 'two'"),
        (b"[gate]\nmin_gian = 1", "Unknown parameter: 'gate.min_gian'"),
        (b"[gate]\nmin_gain = nan", "'gate.min_gain': expected a finite number"),
    ],
)
@pytest.mark.parametrize("command", [["serve", "--model", "x"], ["keys", "list"]], ids=["serve", "keys"])
def test_a_settings_file_that_is_wrong_is_told(
    command: list[str], content: bytes, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tuneport.toml").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 2
    assert complaint in run.output
    assert "Input should" not in run.output


ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
GRADER = {"type": "string_check", "name": "g", "input": 5, "reference": "b", "operation": "eq"}
TYPED: list[tuple[list[str], str]] = [
    (["data", "check", "."], "is a directory"),
    (["data", "check", "rows.jsonl", "--validation", "."], "is a directory"),
    (["data", "check", "rows.jsonl", "--clean", "none/clean.jsonl"], "none/clean.jsonl.partial: No such file"),
    (["data", "check", "rows.jsonl", "--model", "."], "holds no model with a tokenizer"),
    (["data", "check", "rows.jsonl", "--method", "sft"], "'sft' is none of supervised, dpo, reinforcement"),
    (["data", "check", "caf\udce9.jsonl"], r"'caf\udce9.jsonl' is no text in UTF-8"),
    (["train", "rows.jsonl", "--model", "m", "--method", "sft"], "'sft' is none of supervised"),
    (["train", "rows[/b].jsonl", "--model", "m"], "'rows[/b].jsonl' does not exist"),
    (["train", "rows.jsonl", "--model", "m", "--set", "batch_size=1", "--set", "batch_size=2"], "given twice"),
    (["train", "rows.jsonl", "--model", "m", "--suffix", "x" * 65], "65 characters; at most 64"),
    (["train", "rows.jsonl", "--model", "m", "--grader", "bad.json"], "bad.json is not JSON"),
    (["train", "rows.jsonl", "--model", "[/red]/[b]"], "no such folder"),
    (["eval", "m", "."], "is a directory"),
    (["eval", "m", "rows.jsonl", "--graders", "bad.json"], "bad.json is not JSON"),
    (["eval", "m", "rows.jsonl", "--graders", "grader.json"], "'0.input': expected a string, got 5"),
    (["eval", "m", "rows.jsonl", "--url", "http://[::1"], "no answer from http://[::1: Invalid port"),
    (["eval", "m", "rows.jsonl", "--url", "http://127.0.0.1:9"], "no answer from http://127.0.0.1:9/v1/models: All"),
    (["jobs", "list", "--url", "http://[::1"], "no answer from http://[::1: Invalid port"),
    (["jobs", "list", "--key", "sk-\u201cx\u201d"], "characters that no key has"),
    (["jobs", "watch", ""], "it is empty"),
    (["adapters", "remove", ""], "it is empty"),
    (["adapters", "show", "ft:\udcff"], "is no text in UTF-8"),
    (["adapters", "alias", "ft:x", "v1=\u00b2"], "no whole number"),
    (["adapters", "alias", "ft:x", "v1=1", "v1=2"], "given twice"),
    (["keys", "list", "--data-dir", "rows.jsonl"], "rows.jsonl: File exists"),
    (["export", "ft:x", "out", "--base", "m", "--data-dir", "none"], "database of none cannot be read"),
]


@pytest.mark.parametrize(("arguments", "complaint"), TYPED, ids=[" ".join(words)[:60] for words, _ in TYPED])
def test_what_is_typed_wrongly_is_told_in_a_line(
    arguments: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text((json.dumps(ROW) + "\n") * 12)
    (tmp_path / "bad.json").write_bytes('{"name": "\xe9"}'.encode("latin-1"))
    (tmp_path / "grader.json").write_text(json.dumps(GRADER))
    (tmp_path / "m").symlink_to(tiny)
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert complaint in " ".join(run.output.replace("│", " ").split())
    assert run.exit_code in (1, 2)
    assert isinstance(run.exception, SystemExit)


@pytest.mark.parametrize(
    ("hyperparameter", "complaint"),
    [
        ("n_epoch=1", "Unknown parameter: 'hyperparameters.n_epoch'."),
        ("n_epochs=two", "Invalid value for 'hyperparameters.n_epochs': expected an integer or 'auto', got 'two'."),
        ("[/b]=1", "Unknown parameter: 'hyperparameters.[/b]'."),
    ],
)
def test_a_wrong_hyperparameter_is_told_in_the_apis_words(
    hyperparameter: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW))
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(app, ["train", "rows.jsonl", "--model", str(tiny), "--set", hyperparameter])
    assert run.exit_code == 2
    assert run.output == f"error: {complaint}\n"


def test_export_says_that_no_such_version_is_registered(tmp_path: Path, tiny: Path) -> None:
    run = CliRunner().invoke(
        app, ["export", "ft:x", str(tmp_path / "out"), "--base", str(tiny), "--data-dir", str(tmp_path)]
    )
    assert run.exit_code == 1
    assert f"no version 'ft:x' is registered in {tmp_path}" in run.output


def test_keys(tmp_path: Path) -> None:
    made = tuneport("keys", "create", "ann", "--data-dir", "data", cwd=tmp_path).stdout.split()
    listed = tuneport("keys", "list", "--data-dir", "data", cwd=tmp_path).stdout
    assert made[0] in listed
    assert made[1] not in listed
    assert tuneport("keys", "revoke", made[0], "--data-dir", "data", cwd=tmp_path).returncode == 0
    again = tuneport("keys", "revoke", made[0], "--data-dir", "data", cwd=tmp_path)
    assert again.returncode == 1
    assert "no key" in again.stderr


def test_training_by_hand(tiny: Path, tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    (tmp_path / "train.jsonl").write_text((json.dumps(row) + "\n") * 12)
    run = tuneport(
        *("train", "train.jsonl", "--model", str(tiny), "--suffix", "greet"),
        *("--set", "n_epochs=1", "--set", "batch_size=4", "--set", "replay_share=0"),
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    register = next(line for line in run.stdout.splitlines() if "to serve it" in line)
    assert json.loads(register.partition("POST /admin/adapters ")[2])["name"].startswith("ft:tiny:personal:greet:")
    (job,) = tmp_path.glob("var/training/ftjob-*")
    assert (job / "adapter" / "adapter_model.safetensors").exists()

    command = shlex.split((job / "report.md").read_text().partition("Do it again\n\n")[2].splitlines()[0])
    brackets = {"messages": [{"role": "[/red]", "content": "Hi"}]}
    (tmp_path / "train.jsonl").write_text(json.dumps(brackets))
    again = tuneport(*command[1:], cwd=tmp_path)
    assert again.returncode == 1
    assert "failed: line 1: messages[0].role is '[/red]'; expected" in again.stdout
    first, second = (json.loads(one.read_text()) for one in tmp_path.glob("var/training/*/job.json"))
    assert first.pop("id") != second.pop("id")
    assert first == second
    (tmp_path / "train.jsonl").unlink()
    refused = tuneport("repeat", str(job), cwd=tmp_path)
    assert refused.returncode == 1
    assert "cannot be repeated without" in refused.stdout
    assert tuneport("repeat", str(tmp_path), cwd=tmp_path).returncode == 2
    assert tuneport("train", "none.jsonl", "--model", str(tiny), cwd=tmp_path).returncode == 2
