"""Files and uploads under any name, with every documented lifetime."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx
import openai
import pytest

from server.openai.files import Download
from tests.inprocess import InProcess

NAMES: dict[str, tuple[str, str]] = {  # sent, and the name of the download
    "folders": ("../a/b c.jsonl", "b c.jsonl"),
    "Windows": (r"data\train.jsonl", "train.jsonl"),
    "quotes": ("""a'b;c=d.jsonl""", """a'b;c=d.jsonl"""),
    "letters": ("Größe-東京-😀.jsonl", "Größe-東京-😀.jsonl"),
    "backwards": ("\u202etxt.jsonl", "\u202etxt.jsonl"),
    "separators": ("a\u2028b\u0085c.jsonl", "a\u2028b\u0085c.jsonl"),
    "percent": ("100%25.jsonl", "100%25.jsonl"),
    "long": ("x" * 506 + ".jsonl", "x" * 506 + ".jsonl"),
}


@pytest.fixture
def http(served: InProcess) -> Iterator[httpx.Client]:
    with served.http() as client:
        yield client


def downloaded(header: str) -> str:
    return unquote(header.partition("utf-8''")[2]) if "utf-8''" in header else header.split('"')[1]


@pytest.mark.parametrize(("name", "kept"), NAMES.values(), ids=NAMES.keys())
def test_a_name_comes_back_and_its_folder_does_not(name: str, kept: str, client: openai.OpenAI) -> None:
    file = client.files.create(file=(name, b"{}"), purpose="fine-tune")
    assert client.files.retrieve(file.id).filename == file.filename == name
    header = client.files.content(file.id).response.headers["content-disposition"]
    assert header.isascii()
    assert downloaded(header) == kept
    client.files.delete(file.id)


@pytest.mark.parametrize(
    "name", [r"a\"b.jsonl", "a%22b.jsonl", "a%0d%0aset-cookie: x.jsonl", "\0.jsonl", "a\x1b[31m.jsonl"]
)
def test_a_raw_name_breaks_no_header(name: str, http: httpx.Client) -> None:
    """As a client writes it that knows no escapes."""
    body = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="' + name.encode() + b'"\r\n\r\n{}\r\n--b--\r\n'
    )
    answer = http.post("/v1/files", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 200, answer.text
    file_id = answer.json()["id"]
    assert "\0" not in answer.json()["filename"]
    content = http.get(f"/v1/files/{file_id}/content")
    assert content.status_code == 200
    assert "set-cookie" not in content.headers
    http.delete(f"/v1/files/{file_id}")


def form(http: httpx.Client, name: str = "a.jsonl", **fields: str) -> httpx.Response:
    return http.post("/v1/files", data={"purpose": "user_data", **fields}, files={"file": (name, b"{}")})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "fine_tune"}, "purpose"),
        ({"purpose": "\0"}, "purpose"),
        ({"expires_after[anchor]": "created_at"}, "expires_after[seconds]"),
        ({"expires_after[seconds]": "3600"}, "expires_after[anchor]"),
        ({"expires_after[anchor]": "last_active_at", "expires_after[seconds]": "3600"}, "expires_after[anchor]"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"}, "expires_after[seconds]"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"}, "expires_after[seconds]"),
        ({"name": "x" * 513}, "file"),
        ({"name": "x.txt", "purpose": "fine-tune"}, "file"),
    ],
)
def test_what_a_form_may_not_say_is_refused_by_its_field(
    fields: dict[str, str], param: str, http: httpx.Client
) -> None:
    answer = form(http, **fields)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("seconds", [3600, 2_592_000])
def test_both_ends_of_a_lifetime_are_taken(seconds: int, client: openai.OpenAI) -> None:
    life: Any = {"anchor": "created_at", "seconds": seconds}
    file = client.files.create(file=("a.txt", b"x"), purpose="user_data", expires_after=life)
    assert file.expires_at == file.created_at + seconds
    upload = client.uploads.create(
        bytes=1, filename="größe/😀.txt", mime_type="text/plain", purpose="user_data", expires_after=life
    )
    part = client.uploads.parts.create(upload.id, data=b"x")
    done = client.uploads.complete(upload.id, part_ids=[part.id])
    assert done.file is not None
    assert done.file.filename == upload.filename == "größe/😀.txt"
    assert done.file.expires_at == done.file.created_at + seconds
    for file_id in (file.id, done.file.id):
        client.files.delete(file_id)


UPLOAD = {"bytes": 1, "filename": "a.jsonl", "mime_type": "text/plain", "purpose": "fine-tune"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"filename": "a.csv"}, "filename"),
        ({"filename": "x" * 513}, "filename"),
        ({"filename": ""}, "filename"),
        ({"bytes": 0}, "bytes"),
        ({"expires_after": {"anchor": "created_at"}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "created_at", "seconds": 3600, "days": 1}}, "expires_after.days"),
        ({"expire_after": 1}, "expire_after"),
    ],
)
def test_an_upload_is_refused_before_its_parts_come(change: dict[str, Any], param: str, http: httpx.Client) -> None:
    answer = http.post("/v1/uploads", json=UPLOAD | change)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_null_means_absent_in_uploads(http: httpx.Client) -> None:
    begun = http.post("/v1/uploads", json={**UPLOAD, "expires_after": None, "anything": None}).json()
    part = http.post(f"/v1/uploads/{begun['id']}/parts", files={"data": b"x"}).json()
    done = http.post(f"/v1/uploads/{begun['id']}/complete", json={"part_ids": [part["id"]], "md5": None})
    assert done.json()["status"] == "completed"
    http.delete(f"/v1/files/{done.json()['file']['id']}")


@pytest.mark.parametrize("odd", ["\0", "\u2028", "file-\0", "..", "x" * 5_000, "😀", "a b"])
@pytest.mark.parametrize(
    "path", ["files/{}", "files/{}/content", "batches/{}", "fine_tuning/jobs/{}", "fine_tuning/jobs/{}/events"]
)
def test_an_odd_id_is_not_found(path: str, odd: str, http: httpx.Client) -> None:
    answer = http.get(f"/v1/{path.format(quote(odd, safe=''))}")
    assert answer.status_code == 404, answer.text


def form_in(http: httpx.Client, name: bytes, charset: str) -> httpx.Response:
    parts = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    parts += b'--b\r\nContent-Disposition: form-data; name="file"; filename="' + name + b'"\r\n\r\n{}\r\n--b--\r\n'
    kind = f"multipart/form-data; boundary=b; charset={charset}"
    return http.post("/v1/files", content=parts, headers={"content-type": kind})


def test_a_name_that_no_text_holds_is_mended(http: httpx.Client) -> None:
    answer = form_in(http, b"a\0b.jsonl", "utf-8")
    assert answer.status_code == 200, answer.text
    assert answer.json()["filename"].startswith("a")
    assert http.get("/v1/files").status_code == 200


@pytest.mark.parametrize("charset", ["raw_unicode_escape", "punycode"])
def test_a_charset_that_is_none_of_text_is_refused(charset: str, http: httpx.Client) -> None:
    """Punycode takes seconds to read a megabyte."""
    answer = form_in(http, b"a.jsonl", charset)
    assert answer.status_code == 400
    assert "charset" in answer.json()["error"]["message"]


def test_of_many_that_delete_a_file_one_does(http: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            path = f"/v1/files/{form(http).json()['id']}"
            statuses = [answer.status_code for answer in pool.map(http.delete, [path] * 8)]
            assert sorted(statuses) == [200, *[404] * 7]


def test_a_file_whose_bytes_are_gone_is_not_found_and_can_be_deleted(served: InProcess, http: httpx.Client) -> None:
    file_id = form(http).json()["id"]
    served.services.files.get(file_id).path.unlink()
    answer = http.get(f"/v1/files/{file_id}/content")
    assert answer.status_code == 404
    assert "upload it again" in answer.json()["error"]["message"]
    assert http.delete(f"/v1/files/{file_id}").status_code == 200


@pytest.mark.anyio
async def test_a_download_comes_whole_though_its_file_is_deleted_before_the_head(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 100_000 + b"b")
    for asked, status, content in (
        ({}, 200, path.read_bytes()),
        ({"range": "bytes=99999-"}, 206, b"ab"),
    ):
        path.write_bytes(b"a" * 100_000 + b"b")
        stream = path.open("rb")
        download = Download(stream, "a.txt")
        path.unlink()
        transport = httpx.ASGITransport(download)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            answer = await client.get("/", headers=asked)
        assert (answer.status_code, answer.content) == (status, content)
        assert answer.headers["content-length"] == str(len(content))
        assert stream.closed
