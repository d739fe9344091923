"""A page on any site can reach a server on this machine: without keys it is refused before anything is done."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from adapters.base import BaseModel
from tests.inprocess import InProcess, in_process
from tests.scripted import ScriptedEngine

EVIL = "https://attacker.example"
APP = "https://app.example"
CHAT = "/v1/chat/completions"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-stainless-os"}


@pytest.fixture(scope="module")
def open_server(
    smollm2_base: BaseModel, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InProcess]:
    """Without keys; pages of one site may use it."""
    engine = ScriptedEngine(tokenizer=tokenizer)
    data = tmp_path_factory.mktemp("open")
    with in_process(smollm2_base, engine, data, no_auth=True, cors_origins=[f"{APP}/"]) as server:
        yield server


@pytest.fixture(scope="module")
def keyed(smollm2_base: BaseModel, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    engine = ScriptedEngine(tokenizer=tokenizer)
    with in_process(smollm2_base, engine, tmp_path_factory.mktemp("keyed"), cors_origins=["*"]) as server:
        yield server


def body(server: InProcess) -> dict[str, Any]:
    return {"model": server.services.catalog.base.name, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": EVIL, "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "attacker.example"},
        {"Host": "attacker.example:8000", "Origin": "http://attacker.example:8000"},
        {"Host": "localhost.attacker.example"},
        {"Host": "93.184.215.14"},
        {"Host": "[::1"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/files", "/admin/keys", "/health", "/metrics", "/nothing", CHAT])
def test_pages_of_other_sites_are_refused_everywhere(
    headers: dict[str, str], path: str, open_server: InProcess
) -> None:
    asked = len(open_server.engine.asked)
    with open_server.http(key=None) as http:
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            answer = http.request(method, path, headers=headers, json=body(open_server))
            assert answer.status_code == 403, (method, answer.text)
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
            assert answer.headers["x-request-id"]
            assert "access-control-allow-origin" not in answer.headers
    assert len(open_server.engine.asked) == asked


def test_a_refused_upload_is_not_even_read(open_server: InProcess) -> None:
    """A body that never ends: an answer before its end shows that nobody waits for it."""
    import socket

    address = httpx.URL(open_server.base_url)
    with socket.create_connection((address.host, address.port or 80), timeout=10) as connection:
        head = f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nOrigin: {EVIL}\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost"},
        {"Host": "LOCALHOST:99"},
        {"Host": "[::1]:8000"},
        {"Host": "127.0.0.2"},
        {"Host": "0.0.0.0:8000"},
        {"Host": "localhost:8000", "Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": APP, "Sec-Fetch-Site": "cross-site"},
        {"Host": "app.example"},
    ],
    ids=str,
)
def test_clients_that_are_no_pages_and_pages_of_its_own_are_answered(
    headers: dict[str, str], open_server: InProcess
) -> None:
    with open_server.http(key=None) as http:
        assert http.get("/v1/models", headers=headers).status_code == 200
        assert http.post(CHAT, headers=headers, json=body(open_server)).status_code == 200


def test_a_listed_site_may_ask_and_read(open_server: InProcess) -> None:
    with open_server.http(key=None) as http:
        asked = http.options(
            CHAT, headers={"Origin": APP, **PREFLIGHT, "Access-Control-Request-Private-Network": "true"}
        )
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == APP
        assert "POST" in asked.headers["access-control-allow-methods"]
        assert "x-stainless-os" in asked.headers["access-control-allow-headers"]
        assert asked.headers["access-control-allow-private-network"] == "true"
        answer = http.post(CHAT, headers={"Origin": APP}, json=body(open_server))
        assert answer.headers["access-control-allow-origin"] == APP
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        wrong = http.post(CHAT, headers={"Origin": APP}, json={})
        assert wrong.status_code == 400
        assert wrong.headers["access-control-allow-origin"] == APP, "a page may read what it did wrong"


def test_a_page_may_read_that_the_server_is_at_fault(open_server: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(open_server.services.batches, "list", broken)
    with open_server.http(key=None) as http:
        answer = http.get("/v1/batches", headers={"Origin": APP})
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in answer.text
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["x-request-id"]


def test_credentials_are_for_listed_sites_only(open_server: InProcess, keyed: InProcess) -> None:
    """A proxy in front may have cookies, and a browser sends them where it may."""
    for server, allowed in ((open_server, "true"), (keyed, None)):
        with server.http(key=None) as http:
            asked = http.options(CHAT, headers={"Origin": APP, **PREFLIGHT})
            assert asked.headers.get("access-control-allow-credentials") == allowed


def test_with_keys_any_site_may_be_let_in_and_sees_its_401(keyed: InProcess) -> None:
    with keyed.http(key=None) as http:
        asked = http.options(CHAT, headers={"Origin": EVIL, **PREFLIGHT})
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, "*")
        refused = http.post(CHAT, headers={"Origin": EVIL}, json=body(keyed))
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")


def test_with_keys_and_no_setting_no_page_may_ask(served: InProcess) -> None:
    with served.http() as http:
        asked = http.options(CHAT, headers={"Origin": EVIL, **PREFLIGHT})
        assert asked.status_code == 403
        answer = http.get("/v1/models", headers={"Origin": EVIL, "Host": "proxy.example"})
        assert answer.status_code == 200, "a proxy in front may have any name"
        assert "access-control-allow-origin" not in answer.headers
