"""Keys in a real SQLite database."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from server.errors import InvalidRequest, NotFound
from server.state.keys import Keys


def test_a_key_works_until_it_is_revoked_and_is_not_kept_in_clear(database: Engine, tmp_path: Path) -> None:
    keys = Keys(database)
    keys.create("admin", admin=True)
    key, secret = keys.create("ann")
    assert keys.check(secret) == key
    assert not key.admin
    assert keys.check(secret + "x") is None
    assert all(secret.encode() not in path.read_bytes() for path in tmp_path.glob("db*"))
    keys.revoke(key.id)
    assert keys.check(secret) is None
    with pytest.raises(NotFound):
        keys.revoke(key.id)


def test_the_first_start_makes_an_admin_key_and_the_last_cannot_be_revoked(database: Engine) -> None:
    keys = Keys(database)
    secret = keys.ensure_admin(None)
    assert secret is not None
    key = keys.check(secret)
    assert key is not None
    assert key.admin
    assert keys.ensure_admin(None) is None
    with pytest.raises(InvalidRequest, match="last admin key"):
        keys.revoke(key.id)
    assert keys.ensure_admin("sk-given") is None
    assert keys.check("sk-given") is not None


def test_another_admin_key_in_the_settings_ends_the_one_before(database: Engine) -> None:
    keys = Keys(database)
    keys.ensure_admin("sk-first")
    kept = keys.create("mine", admin=True)[1]
    assert Keys(database).ensure_admin("sk-second") is None
    for secret, valid in (("sk-first", False), ("sk-second", True), (kept, True)):
        assert (Keys(database).check(secret) is not None) == valid
    assert Keys(database).ensure_admin(None) is None, "there is one of mine"
    assert Keys(database).check("sk-second") is None


def test_a_users_key_does_not_become_the_admins(database: Engine) -> None:
    keys = Keys(database)
    _, secret = keys.create("ann")
    keys.ensure_admin("sk-before")
    with pytest.raises(InvalidRequest, match="the user key 'ann'"):
        keys.ensure_admin(secret)
    assert keys.check("sk-before") is not None, "a start that is refused changes nothing"
    key = keys.check(secret)
    assert key is not None
    assert not key.admin
