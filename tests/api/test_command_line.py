"""`tuneport adapters …` against a running server."""

import json
import os
import shutil

import pytest
from typer.testing import CliRunner

from adapters.base import BaseModel
from server.cli import app
from tests.conftest import MakeAdapter
from tests.inprocess import InProcess

ALIAS = "ft:SmolLM2-135M-Instruct:acme:by-hand"
V1 = f"{ALIAS}:v1"


def test_the_command_line(
    served: InProcess, smollm2_base: BaseModel, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_adapter(smollm2_base, seed=300, rank=2)
    (folder.parent / "missing-on-purpose").mkdir(exist_ok=True)
    monkeypatch.setenv("TUNEPORT_URL", served.base_url.removesuffix("/v1"))
    monkeypatch.setenv("TUNEPORT_ADMIN_KEY", served.api_key)

    def tuneport(*arguments: str, status: int = 0) -> str:
        run = CliRunner().invoke(app, ["adapters", *arguments])
        assert run.exit_code == status, run.output
        return run.output

    # A model beside the adapter stays at home: it may be larger than what the server takes.
    (folder / "model.safetensors").write_bytes(b"")
    os.truncate(folder / "model.safetensors", 80 * 1024**2)
    pickled = shutil.copytree(folder, folder.parent / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    assert "adapter_model.bin: is a pickle" in tuneport("add", V1, str(pickled), status=1), "as by path"
    assert "registered" in tuneport("add", V1, str(folder))
    complaint = " ".join(
        tuneport("add", V1, str(folder.parent / "missing-on-purpose"), status=2).replace("│", " ").split()
    )
    assert "holds no adapter" in complaint.replace("- ", "-")
    assert "ready" in tuneport("load", V1)
    assert tuneport("alias", ALIAS, "v1=90") == f"{ALIAS} -> {V1}=90\n"
    assert f"<- {ALIAS}" in tuneport("list")
    assert ALIAS in tuneport("aliases")
    assert "pointed nowhere else" in tuneport("rollback", ALIAS, status=1)
    assert "pinned" in tuneport("pin", V1)
    assert "pinned" not in tuneport("unpin", V1)
    assert "registered" in tuneport("unload", V1)
    assert json.loads(tuneport("show", V1))["rank"] == 2
    assert "points at" in tuneport("remove", V1, status=1)
    tuneport("unalias", ALIAS)
    tuneport("remove", V1)
    assert "does not exist" in tuneport("show", V1, status=1)
    assert "does not exist" in tuneport("show", "ft:a?b#c", status=1)
    jobs = CliRunner().invoke(app, ["jobs", "watch", "#"], env={"TUNEPORT_API_KEY": served.api_key})
    assert "Could not find fine tune: #" in jobs.output
    monkeypatch.setenv("TUNEPORT_URL", "http://127.0.0.1:9")
    assert "no answer" in tuneport("list", status=1)
