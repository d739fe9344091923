"""The command line as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes


def tuneport(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server.cli", *arguments]
    return processes.run(command, cwd=cwd, limit_seconds=100)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["serve", "--model", "/nothing/there"], "no such folder"),
        (["serve", "--model", "."], "config.json"),
        (["serve"], "setting model: Field required"),
        (["serve", "--model", ".", "--no-auth", "--host", "0.0.0.0"], "open the server to the network"),  # noqa: S104
        (["serve", "--model", ".", "--max-lora-rank", "17"], "max_lora_rank is 17"),
    ],
)
def test_a_server_that_cannot_start_says_why(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    run = tuneport(*arguments, cwd=tmp_path)
    assert run.returncode == 2
    assert complaint in run.stderr
    assert "Traceback" not in run.stderr


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
    assert "ft:tiny:personal:greet:" in run.stdout
    assert len(list(tmp_path.glob("var/training/ftjob-*/adapter/adapter_model.safetensors"))) == 1

    (tmp_path / "bad.jsonl").write_text("{oops\n")
    bad = tuneport("train", "bad.jsonl", "--model", str(tiny), cwd=tmp_path)
    assert bad.returncode == 1
    assert "line 1: not JSON" in bad.stdout
    assert tuneport("train", "none.jsonl", "--model", str(tiny), cwd=tmp_path).returncode == 2
