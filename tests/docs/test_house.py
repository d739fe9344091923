"""Rules of the house that no linter knows."""

import ast

import pytest

from tests.conftest import ROOT

WAITING = {"run", "call", "check_call", "check_output"}
OWN_LIMIT = {"bounded.py", "processes.py", "spawned.py"}  # they hold what they start to a limit themselves


def test_whatever_a_test_starts_has_a_limit() -> None:
    for file in ROOT.glob("tests/**/*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "subprocess":
                where = f"{file}:{node.lineno}: use tests/processes.py"
                limited = any(word.arg == "timeout" for word in node.keywords)
                assert node.func.attr not in WAITING or limited, where
                assert node.func.attr != "Popen" or file.name in OWN_LIMIT, where


@pytest.mark.parametrize("top", ["server", "training", "adapters", "bench", "demo", "tests"])
def test_no_file_is_longer_than_400_lines(top: str) -> None:
    for file in ROOT.glob(f"{top}/**/*.py"):
        assert len(file.read_text().splitlines()) <= 400, file
