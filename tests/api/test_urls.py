"""URLs and bodies as clients write them."""

import gzip
import io
import json
import socket
import zlib
from typing import Any

import httpx
import pytest

from tests.inprocess import KEY, InProcess

CHAT = "/v1/chat/completions"


def body(server: InProcess, text: str = "Hi") -> dict[str, Any]:
    return {"model": server.services.catalog.base.name, "messages": [{"role": "user", "content": text}]}


def exchange(server: InProcess, request: bytes) -> bytes:
    """Send bytes, read until the server closes the connection."""
    address = httpx.URL(server.base_url)
    received = b""
    with socket.create_connection((address.host, address.port or 80), timeout=10) as connection:
        connection.sendall(request)
        while more := connection.recv(65536):
            received += more
    return received


def test_slashes_at_the_end_and_doubled(served: InProcess) -> None:
    with served.http() as http:
        for path in ("/v1/models", "/v1/files", "/v1/fine_tuning/jobs", "/v1/batches", "/admin/keys"):
            plain = http.get(path)
            assert plain.status_code == 200
            for written in (f"{path}/", f"{path}//", f"/{path}", path.replace("/v1/", "/v1//")):
                answer = http.get(f"{http.base_url}".rstrip("/") + written)
                assert (answer.status_code, answer.json()) == (200, plain.json()), written
        assert http.get("/health/").status_code == 200
        model = served.services.catalog.base.name
        texts = (("/v1/responses", "input"), ("/v1/completions", "prompt"))
        for path, wanted in ((CHAT, body(served)), *((path, {"model": model, field: "Hi"}) for path, field in texts)):
            assert http.post(f"{path}/", json=wanted).status_code == 200
            assert http.post(f"{http.base_url}/{path}", json=wanted).status_code == 200


def test_a_models_name_may_be_encoded_and_may_hold_slashes(served: InProcess) -> None:
    name = served.services.catalog.base.name
    with served.http() as http:
        assert http.get(f"/v1/models/{name}/").json()["id"] == name
        for path in (
            "ft%3Aa%3Ab%3A%3Ac",
            "ft:a:b::c",
            "ft%3aQwen%2FQwen3%3A%3Ac",
            "%F0%9F%98%80",
            "%ED%A0%BD",
            "%00",
            "%ff",
        ):
            answer = http.get(f"/v1/models/{path}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found"), path
        assert "ft:Qwen/Qwen3::c" in http.get("/v1/models/ft%3AQwen%2FQwen3%3A%3Ac").json()["error"]["message"]
        assert http.get("/v1/responses/%00").status_code == 404
        assert http.get("/v1/files?after=%00").status_code == 400


def test_head_is_get_without_the_body_and_options_tells_the_methods(served: InProcess) -> None:
    with served.http() as http:
        head = http.head("/v1/models/")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) == len(http.get("/v1/models").content)
        asked = http.options("/v1/files")
        assert (asked.status_code, asked.headers["allow"]) == (204, "GET, POST, HEAD, OPTIONS")


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/v1/nothing", 404, "Invalid URL (GET /v1/nothing)"),
        ("OPTIONS", "/v1/nothing", 404, "Invalid URL"),
        ("POST", "/v1/v1/chat/completions", 404, "twice"),
        ("POST", "/chat/completions", 404, "Did you mean /v1/chat/completions?"),
        ("GET", CHAT, 405, f"Not allowed to GET on {CHAT}; expected POST."),
        ("DELETE", "/v1/files", 405, "expected GET or POST"),
        ("GET", "/v1/../admin/none", 404, ""),
    ],
)
def test_addresses_that_are_not_there_say_so_in_openais_form(
    method: str, path: str, status: int, says: str, served: InProcess
) -> None:
    with served.http() as http:
        answer = http.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert says in answer.json()["error"]["message"]
    assert ("allow" in answer.headers) == (status == 405)


def test_an_absolute_target_and_http_1_0_are_understood(served: InProcess) -> None:
    address = httpx.URL(served.base_url)
    head = f"Host: {address.host}\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n"
    for target in (f"http://{address.host}:{address.port}/v1/models", "/v1/models", "//v1/models?x=1"):
        assert exchange(served, f"GET {target} HTTP/1.1\r\n{head}".encode()).startswith(b"HTTP/1.1 200")
    offer = "Upgrade: h2c\r\nConnection: Upgrade\r\n"
    target = f"http://{address.host}:{address.port}/v1/models/"
    assert b"200 OK" in exchange(served, f"GET {target} HTTP/1.0\r\n{offer}{head}".encode())


def test_expect_100_continue(served: InProcess) -> None:
    content = json.dumps(body(served)).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nExpect: 100-continue\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    answer = exchange(served, (head % KEY).encode() + content)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
    refused = exchange(served, (head % "wrong").encode() + content)
    assert refused.startswith(b"HTTP/1.1 401"), "who has no key is told before the body is sent"


@pytest.mark.parametrize("path", ["/v1/files", "/v1/uploads/upload_1/parts", CHAT, "/admin/adapters"])
def test_a_body_is_not_read_before_the_key_is_known(path: str, served: InProcess) -> None:
    address = httpx.URL(served.base_url)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x"
    )
    with socket.create_connection((address.host, address.port or 80), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 401")


PACKED = {
    "gzip": gzip.compress,
    "x-gzip": lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:]),
    "deflate": zlib.compress,
    "GZIP": gzip.compress,
    "identity": bytes,
}


def bare(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("encoding", [*PACKED, "bare"])
def test_packed_bodies_are_unpacked(encoding: str, served: InProcess) -> None:
    content = json.dumps(body(served, "pack " * 1000)).encode()
    packed = bare(content) if encoding == "bare" else PACKED[encoding](content)
    headers = {"content-encoding": "deflate" if encoding == "bare" else encoding, "content-type": "application/json"}
    with served.http() as http:
        assert http.post(CHAT, content=packed, headers=headers).status_code == 200
        pieces = [packed[start : start + 50] for start in range(0, len(packed), 50)]
        assert http.post(CHAT, content=iter(pieces), headers=headers).status_code == 200
        if encoding != "identity":
            cut = http.post(CHAT, content=packed[:-20], headers=headers)
            assert (cut.status_code, cut.json()["error"]["type"]) == (400, "invalid_request_error")
            assert (
                "compressed" in cut.json()["error"]["message"] or "Content-Encoding" in cut.json()["error"]["message"]
            )
            assert http.post(CHAT, content=content, headers=headers).status_code == 400


def test_a_packed_upload_is_unpacked(served: InProcess) -> None:
    row = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'
    form = httpx.Request("POST", "http://x", data={"purpose": "fine-tune"}, files={"file": ("a.jsonl", row)})
    packed = gzip.compress(form.read())
    headers = {"content-type": form.headers["content-type"], "content-encoding": "gzip"}
    with served.http() as http:
        stored = http.post("/v1/files", content=packed, headers=headers).json()
        assert stored["bytes"] == len(row)
        assert http.get(f"/v1/files/{stored['id']}/content").content == row


def test_bombs_and_other_packings_are_refused(served: InProcess) -> None:
    bomb = gzip.compress(bytes(40 * 1024**2))
    assert len(bomb) < 50_000
    with served.http() as http:
        headers = {"content-encoding": "gzip"}
        assert http.post(CHAT, content=bomb, headers=headers).status_code == 413
        bombs = http.post(CHAT, content=bomb[:20_000], headers=headers)
        assert bombs.status_code in (400, 413)
        for encoding in ("br", "zstd", "gzip, gzip"):
            answer = http.post(CHAT, json=body(served), headers={"content-encoding": encoding})
            assert answer.status_code == 415
            assert "send gzip, deflate" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content_type", "codec"),
    [
        (None, "utf-8"),
        ("application/json", "utf-8"),
        ("application/json; charset=utf-8", "utf-8"),
        ('application/json; charset="UTF-8"', "utf-8-sig"),
        ("application/json", "utf-8-sig"),
        ("application/json", "utf-16"),
        ("application/json", "utf-16-be"),
        ("application/json", "utf-32"),
        ("application/json; charset=utf-16", "utf-16"),
        ("application/json; charset=ISO-8859-1", "latin-1"),
        ("text/plain", "utf-8"),
        ("text/plain;charset=windows-1252", "cp1252"),
        ("application/x-www-form-urlencoded", "utf-8"),
        ("application/vnd.api+json", "utf-8"),
        ("nonsense", "utf-8"),
        ("multipart/form-data", "utf-8"),
        ("multipart/form-data; boundary=x", "utf-8"),
        ("application/json; charset=UTF_8", "utf-8"),
        ("application/json; charset='utf-8'", "utf-8"),
        ("application/json; charset=ISO_8859-1", "latin-1"),
        ("application/json; charset=iso8859-1", "latin-1"),
    ],
)
def test_json_is_json_whatever_its_content_type(content_type: str | None, codec: str, served: InProcess) -> None:
    content = json.dumps(body(served, "naïve"), ensure_ascii=False).encode(codec)
    headers = {} if content_type is None else {"content-type": content_type}
    with served.http() as http:
        answer = http.post(CHAT, content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    assert "naïve" in served.engine.tokenizer.decode(served.engine.asked[-1].prompt)


@pytest.mark.parametrize(
    ("content", "content_type", "says"),
    [
        ('{"a": "ï"}'.encode("latin-1"), "application/json", "not valid utf-8 (at byte 7)"),
        (b"{}", "application/json; charset=klingon", "unknown"),
        (b"{}", "application/json; charset=zlib", "unknown"),
        (b"", "application/json", "no body"),
        (b"{", "application/json", "not valid JSON"),
        (b"[" * 100_000, "application/json", "could not be read"),
        (b"[1]", "application/json", "expected an object"),
        (b'"x"', "application/json", "expected an object"),
        (b"null", "application/json", "no body"),
        (b'{"model": ' + b"9" * 5000 + b"}", "application/json", "could not be read"),
    ],
)
def test_bodies_that_are_no_object_say_so(content: bytes, content_type: str, says: str, served: InProcess) -> None:
    with served.http() as http:
        answer = http.post(CHAT, content=content, headers={"content-type": content_type})
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"], answer.text


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"--x--", "multipart/form-data"),
        (b"x", "multipart/form-data; boundary=x"),
        (b"--x\r\nnonsense\r\n\r\n1\r\n--x--\r\n", "multipart/form-data; boundary=x"),
        (b"{}", "application/json"),
        (b"purpose=fine-tune", "application/x-www-form-urlencoded"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/files", "/admin/adapters"])
def test_broken_forms_are_the_clients_fault(content: bytes, content_type: str, path: str, served: InProcess) -> None:
    with served.http() as http:
        answer = http.post(path, content=content, headers={"content-type": content_type})
    assert answer.status_code == 400, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def form(server: InProcess, *parts: tuple[str, str]) -> httpx.Response:
    """A file's form of these parts: what follows `form-data; ` in the head of each, and its content."""
    given = [('name="purpose"', "vision"), *parts]
    body = "".join(f"--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{text}\r\n" for head, text in given)
    with server.http() as http:
        headers = {"content-type": "multipart/form-data; boundary=x"}
        return http.post("/v1/files", content=f"{body}--x--\r\n".encode(), headers=headers)


FILE = ('name="file"; filename="a.jsonl"', "{}")


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([FILE, ('name="file"; filename="b.jsonl"', "{}")], "file"),
        ([FILE, ('name="purpose"', "batch")], "purpose"),
        ([FILE, ('name="expires_after"', '{"anchor": "created_at", "seconds": 3600}')], "expires_after"),
        ([FILE, ('name="expires_after.seconds"', "3600")], "expires_after.seconds"),
        ([FILE, ('name="expires_after[second]"', "3600")], "expires_after[second]"),
        ([('name="file"', "{}")], "file"),
    ],
)
def test_a_part_that_would_be_lost_is_refused(parts: list[tuple[str, str]], param: str, served: InProcess) -> None:
    answer = form(served, *parts)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


def test_what_a_form_says_twice_alike_is_taken(served: InProcess) -> None:
    assert form(served, FILE, ('name="purpose"', "vision")).status_code == 200
    purpose = form(served, FILE, ('name="purpose"; filename="purpose"', "vision")).json()["error"]
    assert purpose["param"] == "purpose"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("filename=a.jsonl", "a.jsonl"),
        ("filename=\"=?utf-8?B?bmHDr3ZlLmpzb25s?=\"; filename*=utf-8''na%C3%AFve.jsonl", "naïve.jsonl"),
        ("filename=\"a;b.jsonl\"; filename*=UTF-8'de'a%3Bb.jsonl", "a;b.jsonl"),
        ('filename="naïve.jsonl"', "naïve.jsonl"),
        ('filename=""', "file"),
    ],
)
def test_a_file_has_the_name_that_its_sender_meant(head: str, name: str, served: InProcess) -> None:
    assert form(served, (f'name="file"; {head}', "{}")).json()["filename"] == name


def test_letters_that_are_not_encoded_are_read_as_utf_8(served: InProcess) -> None:
    head = f"HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n"
    answer = exchange(served, f"GET /v1/models/ft:é {head}".encode())
    assert answer.startswith(b"HTTP/1.1 404")
    assert "The model `ft:é` does not exist".encode() in answer
    answer = exchange(served, f"GET /v1/fine_tuning/jobs?metadata[größe]=ü {head}".encode())
    assert answer.startswith(b"HTTP/1.1 200")


def test_forms_with_unknown_parts_and_without_file_names(served: InProcess) -> None:
    row = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'
    fields = {"purpose": "fine-tune", "new": "1"}
    with served.http() as http:
        stored = http.post("/v1/files", data=fields, files={"file": ("a.jsonl", row), "other": ("b", b"x")})
        assert (stored.status_code, stored.json()["bytes"]) == (200, len(row))
        for content in (row, row * 20_000):
            refused = http.post("/v1/files", data=fields, files={"file": ("", io.BytesIO(content))})
            assert refused.status_code == 400
            assert "a file name" in refused.json()["error"]["message"]
