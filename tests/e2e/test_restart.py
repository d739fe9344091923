"""A server killed without a word: everything answered as stored is there again, and the folder has one owner."""

import io
import sys
from pathlib import Path

import openai
import psutil
import pytest

from adapters.base import BaseModel
from tests import processes
from tests.conftest import MakeAdapter
from tests.e2e.conftest import Running, engines
from tests.inprocess import in_process
from tests.scripted import ScriptedEngine

NAME = "ft:SmolLM2-135M-Instruct:acme:restart:1"
ALIAS = "ft:SmolLM2-135M-Instruct:acme:restart"


@pytest.mark.last
def test_after_sigkill_everything_is_there(
    running: Running, client: openai.OpenAI, smollm2: Path, smollm2_base: BaseModel, make_adapter: MakeAdapter
) -> None:
    server, data = running.server, running.server.log.parent
    running.register(NAME, make_adapter(smollm2_base, rank=2))
    file = client.files.create(file=("a.jsonl", io.BytesIO(b"{}\n")), purpose="fine-tune")
    before = client.models.retrieve(NAME)
    with running.http() as http:
        http.put(f"/admin/adapters/aliases/{ALIAS}", json={"weights": {NAME: 1}}).raise_for_status()

    command = [sys.executable, "-m", "server.cli", "serve", "--model", str(smollm2), "--data-dir", str(data)]
    second = processes.run([*command, "--port", "0"], limit_seconds=60)
    assert second.returncode != 0
    assert "another server works on" in second.stderr
    assert client.models.retrieve(NAME) == before, "the first one's key is still one"
    own = engines(server)
    assert own
    server.process.kill()
    server.process.wait()
    _, alive = psutil.wait_procs(own, timeout=10)
    assert not alive, "no engine holds memory without a server"

    with in_process(smollm2_base, ScriptedEngine(), data.parent, data_dir=data) as again:
        client = again.openai(server.api_key)
        assert client.models.retrieve(NAME) == before
        assert again.http(server.api_key).get(f"/admin/adapters/aliases/{ALIAS}").json()["weights"] == {NAME: 1}
        assert client.files.content(file.id).content == b"{}\n"
