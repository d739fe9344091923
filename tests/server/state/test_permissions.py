"""Checkpoints released to projects, in a real database."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from server.errors import NotFound
from server.state.permissions import Permissions

NAME = "ft:m:o::1:ckpt-step-3"


@pytest.fixture
def permissions(database: Engine) -> Permissions:
    return Permissions(database)


def test_a_permission_is_there_until_it_is_withdrawn(permissions: Permissions) -> None:
    first, second = permissions.allow(NAME, "proj_a"), permissions.allow(NAME, "proj_b")
    assert permissions.allow(NAME, "proj_a") == first
    assert {one.id for one in permissions.list(NAME)} == {first.id, second.id}
    assert permissions.list(NAME, "proj_b") == [second]
    assert permissions.list("ft:another") == []
    with pytest.raises(NotFound):
        permissions.withdraw("ft:another", first.id)
    permissions.withdraw(NAME, first.id)
    assert permissions.list(NAME) == [second]


def test_one_permission_asked_for_at_once_is_one(permissions: Permissions) -> None:
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(lambda _: permissions.allow(NAME, "proj_a"), range(40)))
    assert len({one.id for one in made}) == 1
