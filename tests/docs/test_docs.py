"""The docs are younger than the code, and what they name exists."""

import ast
import importlib.metadata
import re
import sys
import time

import pytest

from bench import proofs
from tests import processes
from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("demo/*.md")])


@pytest.mark.parametrize(("name", "maker"), [("reference.md", "page"), ("differences.md", "differences")])
def test_generated_pages_are_what_the_code_says(name: str, maker: str) -> None:
    generate = f"from docs.generate import {maker}; import sys; sys.stdout.write({maker}())"
    page = processes.run([sys.executable, "-c", generate], cwd=ROOT, limit_seconds=60)
    assert (ROOT / "docs" / name).read_text() == page.stdout, "run `python docs/generate.py`"


def test_the_page_of_proofs_is_what_their_results_and_the_code_say() -> None:
    assert proofs.PAGE.read_text() == proofs.page(), "run `python docs/generate.py`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: object) -> None:
    from pathlib import Path

    assert isinstance(page, Path)
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGES = ("server", "training", "adapters")
TOPS = (*PACKAGES, "demo", "bench")
ROWS = re.findall(r"^\| `([\w/]+/)` \|[^|]*\| ([^|]*) \| (.*) \|$", ARCHITECTURE, re.MULTILINE)
MAP = {room: re.findall(r"(?:^|· |and |beside )`(\w+)`", modules) for room, _, modules in ROWS}


def rooms() -> list[str]:
    """Every folder with Python in it, but for what the database runs once."""
    folders = {file.parent for top in TOPS for file in ROOT.glob(f"{top}/**/*.py")}
    return sorted(f"{folder.relative_to(ROOT)}/" for folder in folders if "migrations" not in folder.parts)


@pytest.mark.parametrize("room", rooms())
def test_the_map_of_the_architecture_is_the_tree(room: str) -> None:
    files = {file.stem: len(ast.parse(file.read_text()).body) for file in (ROOT / room).glob("*.py")}
    modules = [name for name, statements in files.items() if name != "__init__" or statements > 1]
    assert sorted(MAP[room]) == sorted(modules)
    named = [name for name in modules if not name.startswith("__")]
    if room.startswith(PACKAGES):
        assert len(named) <= 10, "more than ten modules: a part of them wants a room of its own"


def test_the_map_has_no_room_that_is_gone() -> None:
    assert sorted(MAP) == rooms()


@pytest.mark.parametrize(("room", "held"), [(room, held) for room, held, _ in ROWS])
def test_every_room_of_the_map_has_its_tests(room: str, held: str) -> None:
    folders = re.findall(r"`(tests/[\w/]*)`", held)
    assert folders, room
    for folder in folders:
        assert list((ROOT / folder).glob("**/test_*.py")), folder


@pytest.mark.parametrize("page", [ARCHITECTURE, (ROOT / "CONTRIBUTING.md").read_text()], ids=["map", "contributing"])
def test_every_path_that_is_named_exists(page: str) -> None:
    for path in re.findall(rf"`((?:{'|'.join(TOPS)}|tests)/[\w./]*)`", page):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("held", re.findall(r"`(tests/[\w/.]+::\w+)`", (ROOT / "docs" / "security.md").read_text()))
def test_every_defence_has_its_test(held: str) -> None:
    file, _, name = held.partition("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_every_make_target_the_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert (
        set(re.findall(r"make (demo|test|prove|serve|bench|lint|setup)", (ROOT / "README.md").read_text())) <= targets
    )


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, server.cli; print([m for m in ('torch', 'vllm', 'fastapi', 'transformers') if m in sys.modules])"
    )
    run = processes.run([sys.executable, "-c", code], limit_seconds=60)
    assert run.stdout.strip() == "[]"
    started = time.perf_counter()
    assert processes.run([sys.executable, "-m", "server.cli", "--help"], limit_seconds=60).returncode == 0
    assert time.perf_counter() - started < 10, "seconds on a busy machine; without heavy imports it takes half a one"


def test_the_import_names_are_ours() -> None:
    """AdapterHub's package owns `adapters` too: with it installed, the wrong code would be imported."""
    owners = importlib.metadata.packages_distributions()
    for name in ("adapters", "server", "training"):
        assert set(owners.get(name, ["tuneport"])) == {"tuneport"}
