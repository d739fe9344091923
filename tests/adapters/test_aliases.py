"""Aliases point at versions, are moved and rolled back, split traffic by weight and stick to users."""

from collections import Counter
from pathlib import Path

import pytest

from adapters.base import BaseModel
from adapters.errors import AdapterInUse, AdapterNotFound, InvalidAlias, InvalidName, NameTaken
from adapters.registry import Alias, Registry
from tests.adapters.test_registry import open_registry
from tests.conftest import MakeAdapter

ALIAS = "ft:acme-support"


@pytest.fixture
def registry(make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path) -> Registry:
    registry = open_registry(tmp_path, tiny_base)
    for number in (1, 2, 3):
        registry.register(f"{ALIAS}:v{number}", make_adapter(tiny_base, seed=number), owned_by="acme")
    return registry


def test_moved_rolled_back_and_there_after_a_restart(registry: Registry, tiny_base: BaseModel, tmp_path: Path) -> None:
    registry.set_alias(ALIAS, {f"{ALIAS}:v1": 100}, owned_by="acme")
    moved = registry.set_alias(ALIAS, {"v2": 1}, owned_by="acme")
    assert (moved.weights, moved.previous) == ({f"{ALIAS}:v2": 1}, {f"{ALIAS}:v1": 100})
    assert registry.set_alias(ALIAS, {"v2": 1}, owned_by="acme").previous == {f"{ALIAS}:v1": 100}, "no move, no history"
    assert open_registry(tmp_path, tiny_base).aliases() == [registry.alias(ALIAS)]
    assert registry.set_alias(ALIAS, moved.previous or {}, owned_by="acme").pick("ann") == f"{ALIAS}:v1"
    registry.remove_alias(ALIAS)
    with pytest.raises(AdapterNotFound):
        registry.alias(ALIAS)
    assert len(registry.list()) == 3


@pytest.mark.parametrize(
    ("name", "weights", "error"),
    [
        (ALIAS, {}, InvalidAlias),
        (ALIAS, {"v1": 0}, InvalidAlias),
        (ALIAS, {"v1": -1, "v2": 1}, InvalidAlias),
        (ALIAS, {"v1": 10**9}, InvalidAlias),
        (ALIAS, {"v9": 1}, AdapterNotFound),
        (ALIAS, {ALIAS: 1}, AdapterNotFound),
        (f"{ALIAS}:v1", {f"{ALIAS}:v2": 1}, NameTaken),
        ("gpt-4o", {f"{ALIAS}:v2": 1}, InvalidName),
    ],
)
def test_what_cannot_be_is_refused(
    name: str, weights: dict[str, int], error: type[Exception], registry: Registry
) -> None:
    with pytest.raises(error):
        registry.set_alias(name, weights, owned_by="acme")
    assert registry.aliases() == []


def test_an_adapter_cannot_take_an_aliass_name(
    registry: Registry, make_adapter: MakeAdapter, tiny_base: BaseModel
) -> None:
    registry.set_alias(ALIAS, {"v1": 1}, owned_by="acme")
    with pytest.raises(NameTaken, match="alias"):
        registry.register(ALIAS, make_adapter(tiny_base, seed=9), owned_by="acme")


def test_deleting_what_an_alias_points_at_needs_force(registry: Registry) -> None:
    registry.set_alias(ALIAS, {"v1": 90, "v2": 10}, owned_by="acme")
    with pytest.raises(AdapterInUse, match=ALIAS):
        registry.remove(f"{ALIAS}:v1")
    registry.remove(f"{ALIAS}:v1", force=True)
    assert registry.alias(ALIAS).weights == {f"{ALIAS}:v2": 10}
    registry.remove(f"{ALIAS}:v2", force=True)
    assert registry.aliases() == []
    assert [adapter.name for adapter in registry.list()] == [f"{ALIAS}:v3"]


def test_shares_follow_the_weights_and_users_stay_where_they_are() -> None:
    def alias(**weights: int) -> Alias:
        return Alias(ALIAS, weights, None, "acme", 0, 0)

    users = [f"user-{number}" for number in range(4000)]
    canary = {user: alias(v1=90, v2=10).pick(user) for user in users}
    assert {user: alias(v1=90, v2=10).pick(user) for user in users} == canary
    assert abs(Counter(canary.values())["v2"] / len(users) - 0.10) < 0.02
    half = {user: alias(v1=50, v2=50).pick(user) for user in users}
    assert all(half[user] == "v2" for user in users if canary[user] == "v2"), "nobody goes back"
    assert abs(Counter(half.values())["v2"] / len(users) - 0.50) < 0.03
    assert {alias(v1=1, v2=0).pick(user) for user in users} == {"v1"}
    anonymous = Counter(alias(v1=90, v2=10).pick(None) for _ in range(2000))
    assert 0.05 < anonymous["v2"] / 2000 < 0.15


@pytest.mark.parametrize("user", ["\ud83d", "a\0b", "\u202e", "x" * 1_000_000])
def test_any_user_gets_one_version(user: str) -> None:
    alias = Alias("ft:acme", {"ft:acme:v1": 50, "ft:acme:v2": 50}, None, "acme", 0, 0)
    assert len({alias.pick(user) for _ in range(5)}) == 1
