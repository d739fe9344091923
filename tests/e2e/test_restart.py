"""A server killed without a word: everything answered as stored is there again, and the folder has one owner."""

import io
import subprocess
import sys
from pathlib import Path

import openai
import psutil

from adapters.base import BaseModel
from demo.server import serve
from tests.conftest import MakeAdapter

NAME = "ft:tiny:acme:support:1"
ALIAS = "ft:tiny:acme:support"


def test_after_sigkill_everything_is_there(
    tiny: Path, tiny_base: BaseModel, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    adapter = make_adapter(tiny_base)
    data = tmp_path / "data"
    with serve(tiny, data, "--adapter-root", str(adapter.parent)) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key=server.api_key)
        client.post("/../admin/adapters", body={"name": NAME, "path": str(adapter)}, cast_to=object)
        file = client.files.create(file=("a.jsonl", io.BytesIO(b"{}\n")), purpose="fine-tune")
        before = client.models.retrieve(NAME)
        client.put(f"/../admin/adapters/aliases/{ALIAS}", body={"weights": {NAME: 1}}, cast_to=object)

        command = [sys.executable, "-m", "server.cli", "serve", "--model", str(tiny), "--data-dir", str(data)]
        second = subprocess.run([*command, "--port", "0"], capture_output=True, text=True, check=False)
        assert second.returncode != 0
        assert "another server works on" in second.stderr
        server.wait("/ready")
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert any("EngineCore" in child.name() for child in children)
        server.process.kill()
        server.process.wait()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not [child for child in alive if "EngineCore" in child.name()], "no engine holds memory without a server"

    with serve(tiny, data) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key=server.api_key)
        assert client.models.retrieve(NAME) == before
        assert server.get(f"/admin/adapters/aliases/{ALIAS}").json()["weights"] == {NAME: 1}
        assert client.files.content(file.id).content == b"{}\n"
