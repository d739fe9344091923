"""Keys, headers, unknown URLs, and what needs no key."""

import re
from typing import Any

import openai
import pytest
from fastapi.routing import APIRoute

from server.app import create_app
from server.settings import Settings
from tests.inprocess import KEY, InProcess


def test_without_or_with_a_wrong_key(served: InProcess) -> None:
    for key in ("", "sk-wrong"):
        wrong = openai.OpenAI(base_url=served.base_url, api_key=key or "x", max_retries=0)
        with pytest.raises(openai.AuthenticationError) as raised:
            wrong.models.list()
        assert raised.value.code == "invalid_api_key"
    with served.http() as http:
        bare = http.get("/v1/models", headers={"Authorization": ""})
    assert bare.status_code == 401
    assert "Authorization: Bearer" in bare.json()["error"]["message"]


def test_a_user_key_calls_models_but_does_not_administrate(served: InProcess) -> None:
    with served.http() as http:
        made = http.post("/admin/keys", json={"name": "ann"}).json()
        assert made["secret"].startswith("sk-tuneport-")
        assert made["secret"] not in http.get("/admin/keys").text
        with served.http(made["secret"]) as user:
            assert user.get("/v1/models").status_code == 200
            refused = user.get("/admin/adapters")
            assert refused.status_code == 403
            assert refused.json()["error"]["code"] == "insufficient_permissions"
            assert http.delete(f"/admin/keys/{made['id']}").json()["deleted"] is True
            assert user.get("/v1/models").status_code == 401


def test_every_answer_has_openais_headers(served: InProcess) -> None:
    with served.http() as http:
        for path in ("/v1/models", "/v1/nothing", "/health", "/ready", "/metrics"):
            answer = http.get(path)
            assert answer.headers["x-request-id"].startswith("req_")
            assert int(answer.headers["openai-processing-ms"]) >= 0
        assert http.get("/v1/nothing").json()["error"]["message"] == "Invalid URL (GET /v1/nothing)"
        assert http.patch("/v1/models").json()["error"]["type"] == "invalid_request_error"
        assert http.post("/v1/chat/completions", content=bytes(33 * 1024**2)).status_code == 413


@pytest.fixture(scope="module")
def keys(served: InProcess) -> dict[str, str]:
    """The secrets of a user's key and of an admin's, and what no key is."""
    with served.http() as http:
        made = http.post("/admin/keys", json={"name": "walker"}).json()
    return {"user": made["secret"], "admin": KEY, "wrong": "sk-wrong", "": ""}


OPEN = {"/health", "/ready"}
ADMINS = ("/admin/", "/metrics", "/v1/fine_tuning/checkpoints/", "DELETE /v1/models/")


def routes() -> list[str]:
    """Every route, as `GET /v1/models`."""
    unused: Any = None
    app = create_app(Settings(model="none"), unused, unused)
    found = [route for route in app.routes if isinstance(route, APIRoute)]
    return sorted(f"{method} {route.path}" for route in found for method in route.methods)


@pytest.mark.parametrize("route", routes())
def test_every_route_asks_for_a_key(route: str, served: InProcess, keys: dict[str, str]) -> None:
    method, path = route.split(" ")
    path = re.sub(r"\{[^}]*\}", "nothing", path)
    statuses: dict[str, int] = {}
    for who, secret in keys.items():
        with served.http(secret or "x") as http:
            headers = {"Authorization": f"Bearer {secret}" if secret else ""}
            statuses[who] = http.request(method, path, headers=headers, json={}).status_code
    if path in OPEN:
        assert set(statuses.values()) == {200}
        return
    assert statuses[""] == statuses["wrong"] == 401
    assert statuses["admin"] not in (401, 403)
    refused = path.startswith(ADMINS) or route.startswith(ADMINS)
    assert (statuses["user"] == 403) == refused
