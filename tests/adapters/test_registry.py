import os
from pathlib import Path

import pytest

from adapters.base import BaseModel
from adapters.database import connect
from adapters.errors import AdapterNotFound, InvalidAdapter, NameTaken
from adapters.registry import Registry
from adapters.store import Store
from adapters.validate import WEIGHTS, Limits
from tests.conftest import MakeAdapter

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
