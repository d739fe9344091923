"""Keys, headers, unknown URLs, and what needs no key."""

import openai
import pytest

from tests.inprocess import InProcess


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
