import errno
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from adapters.base import BaseModel
from adapters.database import connect
from adapters.errors import AdapterDamaged, AdapterNotFound, InvalidAdapter, NameTaken, TooManyAdapters
from adapters.files.validate import WEIGHTS, Limits
from adapters.registry import Registry
from adapters.store import Store
from tests import processes
from tests.conftest import ROOT, MakeAdapter

NAME = "ft:tiny:acme:support:a1B2c3D4"


def open_registry(folder: Path, base: BaseModel) -> Registry:
    return Registry(connect(f"sqlite:///{folder / 'db'}"), Store(folder / "adapters"), base, Limits(max_rank=16))


def test_everything_is_there_after_a_restart(make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path) -> None:
    registered = open_registry(tmp_path, tiny_base).register(NAME, make_adapter(tiny_base), owned_by="acme")

    again = open_registry(tmp_path, tiny_base)

    assert again.get(NAME) == registered
    assert again.list() == [registered]
    assert (registered.path / WEIGHTS).is_file()
    assert registered.path.name == registered.digest


def test_same_weights_twice_are_one_folder_and_a_name_stands_for_one_weight(
    make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path
) -> None:
    registry = open_registry(tmp_path, tiny_base)
    source, other = make_adapter(tiny_base, seed=1), make_adapter(tiny_base, seed=2)
    first = registry.register(NAME, source, owned_by="acme")

    assert registry.register(NAME, source, owned_by="acme") == first
    second = registry.register("ft:another", source, owned_by="acme")
    assert second.path == first.path
    with pytest.raises(NameTaken):
        registry.register(NAME, other, owned_by="acme")
    assert len(list((tmp_path / "adapters").glob("[0-9a-f]*"))) == 1

    registry.remove(NAME)
    assert second.path.is_dir()
    registry.remove("ft:another")
    assert not second.path.exists()
    with pytest.raises(AdapterNotFound):
        registry.get(NAME)


def test_a_refused_adapter_leaves_nothing(make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path) -> None:
    registry = open_registry(tmp_path, tiny_base)
    with pytest.raises(InvalidAdapter):
        registry.register(NAME, make_adapter(tiny_base, rank=32), owned_by="acme")
    assert registry.list() == []
    assert not any(path.is_file() for path in (tmp_path / "adapters").rglob("*"))


def test_links_are_not_followed(make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path) -> None:
    registry = open_registry(tmp_path, tiny_base)
    source = make_adapter(tiny_base)
    secret = tmp_path / "secret"
    (source / WEIGHTS).rename(secret)
    os.symlink(secret, source / WEIGHTS)
    with pytest.raises(InvalidAdapter, match="link"):
        registry.register(NAME, source, owned_by="acme")


def test_the_base_of_another_name_does_not_see_them(
    make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path
) -> None:
    open_registry(tmp_path, tiny_base).register(NAME, make_adapter(tiny_base), owned_by="acme")
    other = open_registry(tmp_path, BaseModel("other", tiny_base.path, tiny_base.shapes))
    assert other.list() == []
    with pytest.raises(AdapterNotFound):
        other.get(NAME)


def test_damaged_files_are_repaired_by_registering_again(
    make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path
) -> None:
    registry = open_registry(tmp_path, tiny_base)
    source = make_adapter(tiny_base)
    adapter = registry.register(NAME, source, owned_by="acme")
    (adapter.path / WEIGHTS).chmod(0o644)
    for damage in (lambda file: file.write_bytes(b"x"), lambda file: file.unlink()):
        damage(adapter.path / WEIGHTS)
        with pytest.raises(AdapterDamaged):
            registry.store.verify(adapter.digest)
        assert registry.register(NAME, source, owned_by="acme") == adapter
        registry.store.verify(adapter.digest)


def test_a_flood_is_stopped_before_its_files_are_copied(
    make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path
) -> None:
    store = Store(tmp_path / "adapters")
    registry = Registry(connect(f"sqlite:///{tmp_path / 'db'}"), store, tiny_base, Limits(16, max_adapters=20))
    source = make_adapter(tiny_base)
    for number in range(20):
        registry.register(f"ft:flood:{number}", source, owned_by="acme")
    for number in range(20, 10_000):
        with pytest.raises(TooManyAdapters, match="max_adapters"):
            registry.register(f"ft:flood:{number}", tmp_path / "not even read", owned_by="acme")
    assert registry.register("ft:flood:3", source, owned_by="acme").name == "ft:flood:3"
    registry.remove("ft:flood:3")
    registry.register("ft:flood:new", source, owned_by="acme")


def test_a_full_disk_during_registration_leaves_nothing(
    make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path
) -> None:
    """The kernel refuses to write more than 8 KB to a file, in a process of its own, at each file in turn."""
    source = make_adapter(tiny_base)
    open_registry(tmp_path, tiny_base)
    code = f"""
import resource, signal, sys
from pathlib import Path
from tests.adapters.test_registry import open_registry
from adapters.base import BaseModel
registry = open_registry(Path({str(tmp_path)!r}), BaseModel.read(Path({str(tiny_base.path)!r})))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    registry.register({NAME!r}, Path({str(source)!r}), owned_by="acme")
except OSError as error:
    sys.exit(error.errno)
"""
    run = processes.run([sys.executable, "-c", code], cwd=ROOT, limit_seconds=60)
    assert run.returncode == errno.EFBIG
    registry = open_registry(tmp_path, tiny_base)
    assert registry.list() == []
    assert not any(path.is_file() for path in (tmp_path / "adapters").rglob("*"))
    registry.register(NAME, source, owned_by="acme")


def test_a_folder_of_adapters_names_them(make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path) -> None:
    """As trainers leave it that save a folder a checkpoint, and nothing above."""
    run = tmp_path / "run"
    for step in (100, 200):
        shutil.copytree(make_adapter(tiny_base), run / f"checkpoint-{step}")
    with pytest.raises(InvalidAdapter, match="name one of its folders: checkpoint-100, checkpoint-200"):
        open_registry(tmp_path, tiny_base).register(NAME, run, owned_by="acme")


REGISTER = """os.mkdir adapters/.staging/*
open adapters/.staging/*/adapter_config.json
open adapters/.staging/*/adapter_model.safetensors
open adapters/.unsettled/*
os.rename adapters/.staging/*
INSERT INTO adapters
commit
os.remove adapters/.unsettled/*"""
REMOVE = """open adapters/.unsettled/*
DELETE FROM adapters
commit
os.remove adapter_config.json
os.remove adapter_model.safetensors
os.rmdir adapters/*
os.remove adapters/.unsettled/*"""


@pytest.mark.parametrize(("what", "changes"), [("register", REGISTER), ("remove", REMOVE)])
def test_sigkill_before_every_change(
    what: str, changes: str, make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.adapters.killed", str(tmp_path), str(tiny_base.path)]
    run = processes.run([*command, str(make_adapter(tiny_base)), what], cwd=ROOT, limit_seconds=100)
    assert run.returncode == 0, run.stderr
    killed = re.sub(r"\btmp\w{8}\b|\b[0-9a-f]{64}\b", "*", run.stdout).split("\n")
    assert sorted(filter(None, killed)) == sorted(changes.split("\n")), "a change without a kill before it"
