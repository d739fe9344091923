"""Adapters registered over HTTP: whole folders by either way, parts as clients name them, and any text."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.base import BaseModel
from adapters.manifest import MAX_PROMPT_CHARACTERS
from tests.conftest import MakeAdapter
from tests.inprocess import InProcess, in_process
from tests.scripted import ScriptedEngine

NAME = "ft:smollm2-135m-instruct:acme:upload:a1"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BESIDE = {  # what trainers leave, and what would be of importance where no adapter lies
    "README.md": b"---\nlibrary_name: peft\n---\n",
    "training_args.bin": b"PK\x03\x04 no archive",
    "optimizer.pt": b"\x80\x02.",
    "adapter_model.bin": b"\x80\x02.",
    "tokenizer.json": b'{"version": "1.0", "model": {}}',
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ 1 / 0 }}",
    "trainer_state.json": b"{}",
    "config.json": b"{}",
    "model.safetensors": b"no model",
    "checkpoint-10/adapter_config.json": b"{}",
}


@pytest.fixture
def http(served: InProcess) -> Iterator[httpx.Client]:
    with served.http() as client:
        yield client
        client.delete(f"/admin/adapters/{NAME}")


@pytest.fixture
def folder(smollm2_base: BaseModel, make_adapter: MakeAdapter) -> Path:
    return make_adapter(smollm2_base, rank=2, modules=("q_proj",))


def upload(http: httpx.Client, files: dict[str, bytes] | list[tuple[str, Any]], **fields: Any) -> httpx.Response:
    """Send `files` (name -> content, or httpx's own list) under the field `file`."""
    parts = [("file", pair) for pair in files.items()] if isinstance(files, dict) else files
    return http.post("/admin/adapters", data={"name": NAME, **fields}, files=parts)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}


def refused(answer: httpx.Response, param: str | None, *parts: str) -> None:
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    for part in parts:
        assert part in error["message"]


def test_a_whole_folder_is_the_same_by_upload_and_by_path(served: InProcess, http: httpx.Client, folder: Path) -> None:
    whole = {**contents(folder), **BESIDE}
    uploaded = upload(http, whole)
    assert uploaded.status_code == 200, uploaded.text
    stored = served.data / "adapters" / uploaded.json()["digest"]
    assert sorted(file.name for file in stored.iterdir()) == [CONFIG, WEIGHTS]
    answer = http.post(
        "/v1/chat/completions", json={"model": NAME, "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
    )
    assert answer.status_code == 200, answer.text

    for name, content in BESIDE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    by_path = served.register(NAME, folder)
    assert by_path.status_code == 200, by_path.text
    assert by_path.json()["digest"] == uploaded.json()["digest"]


@pytest.mark.parametrize("prefix", ["run-1/", "C:\\runs\\run-1\\", "../../", "/etc/cron.d/"])
def test_names_with_folders_are_those_of_the_topmost_one(http: httpx.Client, folder: Path, prefix: str) -> None:
    inner = {f"{prefix}{name}": content for name, content in {**contents(folder), **BESIDE}.items()}
    inner[f"{prefix}ref/{WEIGHTS}"] = b"the reference's"
    answer = upload(http, inner)
    assert answer.status_code == 200, answer.text


def test_a_file_without_a_name_of_its_own_is_called_by_its_field(http: httpx.Client, folder: Path) -> None:
    files = [(name, ("blob", content)) for name, content in contents(folder).items()]
    assert upload(http, files).status_code == 200


def test_unknown_fields_are_left_alone(http: httpx.Client, folder: Path) -> None:
    assert upload(http, contents(folder), comment="v2", base="x\u2028\u202e", empty="").status_code == 200


def test_a_form_may_hold_a_path(served: InProcess, http: httpx.Client, folder: Path) -> None:
    target = served.adapter_root / folder.name
    content = contents(folder)
    folder.rename(target)
    form = {"name": (None, NAME), "path": (None, str(target))}
    answer = http.post("/admin/adapters", files=form)
    assert answer.status_code == 200, answer.text
    refused(upload(http, content, path=str(target)), "path", CONFIG, "one of them")


WRONG_FORMS: dict[str, tuple[Callable[[dict[str, bytes]], list[tuple[str, Any]]], str, str]] = {
    "a file sent as text": (lambda given: [(CONFIG, (None, given[CONFIG]))], CONFIG, "without a file name"),
    "no file at all": (lambda given: [("x", (None, "y"))], CONFIG, "is missing"),
    "only other files": (lambda given: [("file", ("README.md", b"x"))], CONFIG, "is missing"),
    "no file name": (lambda given: [("file", ("", given[CONFIG]))], CONFIG, "is missing"),
    "no config": (lambda given: [("file", (WEIGHTS, given[WEIGHTS]))], CONFIG, f"is missing beside {WEIGHTS}"),
    "no weights": (lambda given: [("file", (CONFIG, given[CONFIG]))], WEIGHTS, "is missing"),
    "a pickle only": (
        lambda given: [("file", (CONFIG, given[CONFIG])), ("file", ("adapter_model.bin", b"\x80"))],
        "adapter_model.bin",
        "is a pickle",
    ),
    "a file twice": (
        lambda given: [("file", (CONFIG, given[CONFIG])), ("file", (CONFIG, given[CONFIG]))],
        CONFIG,
        "twice",
    ),
    "two adapters": (
        lambda given: [("file", (f"{one}/{name}", given[name])) for one in "ab" for name in given],
        CONFIG,
        "a and b",
    ),
}


@pytest.mark.parametrize("what", WRONG_FORMS)
def test_forms_that_hold_no_adapter_say_why(what: str, http: httpx.Client, folder: Path) -> None:
    make, param, part = WRONG_FORMS[what]
    refused(upload(http, make(contents(folder))), param, part)


def test_the_name_of_a_form(http: httpx.Client, folder: Path) -> None:
    files = [("file", pair) for pair in contents(folder).items()]
    refused(http.post("/admin/adapters", files=files), "name", "Missing required parameter")
    as_file = [*files, ("name", ("name.txt", NAME.encode()))]
    refused(http.post("/admin/adapters", files=as_file), "name", "Missing required parameter")
    refused(http.post("/admin/adapters", data={"name": [NAME, "ft:other"]}, files=files), "name", "2 times")
    assert http.post("/admin/adapters", data={"name": [NAME, NAME]}, files=files).status_code == 200


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nft:x'),
        (
            "multipart/form-data; boundary=b; charset=idna",
            b'--b\r\nContent-Disposition: form-data; name="\xc3\xa4"\r\n\r\n\xc3\xa4\r\n--b--\r\n',
        ),
        (
            "multipart/form-data; boundary=b; charset=unicode_escape",
            b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nft:\\ud83d\r\n--b--\r\n',
        ),
        (
            "Multipart/Form-Data; boundary=b; charset=nonsense",
            b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n\xff\0\r\n--b--\r\n',
        ),
    ],
)
def test_broken_forms_are_the_client_s_fault(http: httpx.Client, kind: str, body: bytes) -> None:
    answer = http.post("/admin/adapters", content=body, headers={"content-type": kind})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


TEXTS = {
    "NUL": "a\0b",
    "line separator": "a\u2028b",
    "right to left": "a\u202eb",
    "controls": "a\r\n\x1b[31m\x7fb",
    "not a character": "a\uffffb",
    "beyond the basic plane": "a😀b",
    "a combining accent": "e\u0301",
    "a megabyte": "a" * 1_000_000,
    "blank": " ",
    "nothing": "",
}


@pytest.mark.parametrize("what", TEXTS)
def test_any_text_in_every_place_is_answered(what: str, served: InProcess, http: httpx.Client, folder: Path) -> None:
    text, files = TEXTS[what], contents(folder)

    def post(body: dict[str, str]) -> httpx.Response:
        return http.post("/admin/adapters", json=body)

    refused(post({"name": f"ft:{text}", "path": str(served.adapter_root)}), "name")
    refused(post({"name": NAME, "path": text}), "path")
    refused(post({"name": NAME, "path": f"/{text}"}), "path")
    inside = post({"name": NAME, "path": f"{served.adapter_root}/x/{text}"})
    assert inside.status_code == 400, inside.text
    assert len(inside.content) < 10_000
    answer = upload(http, {**files, f"{text[:1000]}.md": b"x"}, **{f"x{text[:100]}": text[:1000]})
    assert answer.status_code == 200, answer.text
    http.delete(f"/admin/adapters/{NAME}")
    for key in ("base_model_name_or_path", "target_modules", "exclude_modules", "bias", "revision", "x" + text):
        changed = {**json.loads(files[CONFIG]), key: text}
        answer = upload(http, {**files, CONFIG: json.dumps(changed).encode()[:1_100_000]})
        assert answer.status_code in (200, 400), answer.text
        assert len(answer.content) < 10_000
        if answer.status_code == 400:
            assert answer.json()["error"]["param"].startswith((CONFIG, "base_model.model."))
        http.delete(f"/admin/adapters/{NAME}")
    for key in ("rank_pattern", "alpha_pattern"):
        changed = {**json.loads(files[CONFIG]), key: {text: 2}}
        answer = upload(http, {**files, CONFIG: json.dumps(changed).encode()})
        assert answer.status_code in (200, 400), answer.text
        http.delete(f"/admin/adapters/{NAME}")


@pytest.mark.parametrize("what", TEXTS)
def test_any_text_in_a_manifest_is_answered(what: str, http: httpx.Client, folder: Path) -> None:
    text = TEXTS[what][:900_000]
    for manifest in ({"system_prompt": text}, {"job_id": text}, {"chat_template": text}):
        answer = upload(http, {**contents(folder), "manifest.json": json.dumps(manifest).encode()})
        if len(manifest.get("system_prompt", "")) > MAX_PROMPT_CHARACTERS:
            refused(answer, "manifest.json.system_prompt", f"is longer than {MAX_PROMPT_CHARACTERS} characters")
            continue
        assert answer.status_code == 200, answer.text
        body = {"model": NAME, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
        asked = http.post("/v1/chat/completions", json=body)
        assert asked.status_code in (200, 400), asked.text
        http.delete(f"/admin/adapters/{NAME}")
    for manifest in ({"base_model": f"x{text}"}, {f"x{text}": 1, "job_id": "j"}, {"sampling": {text: 1}}):
        answer = upload(http, {**contents(folder), "manifest.json": json.dumps(manifest).encode()[:990_000]})
        refused(answer, answer.json()["error"]["param"], "manifest.json")
        assert len(answer.content) < 10_000


HALF = b"\\ud83d"


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "ft:' + HALF + b'", "path": "/x"}',
        b'{"name": "ft:x", "path": "/' + HALF + b'"}',
        b'{"name": "ft:x", "path": "/x", "' + HALF + b'": 1}',
        b'{"name": "ft:x", "path": "/x", "name": NaN}',
        b'{"name": 1e999, "path": []}',
        b"[" * 100_000,
        b"null",
        b"[]",
        b'"\\udc00"',
        b"",
        b"\xff",
    ],
)
def test_a_body_that_is_no_request_is_refused(http: httpx.Client, body: bytes) -> None:
    for path in ("/admin/adapters", "/admin/keys"):
        answer = http.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, (path, answer.text)


@pytest.mark.parametrize(
    "body",
    [
        b'{"weights": {"' + HALF + b'": 1}}',
        b'{"weights": {"v1": "' + HALF + b'"}}',
        b'{"' + HALF + b'": {}}',
        b'{"weights": {"v1\\u0000": 1}}',
        b'{"weights": {"' + b"v" * 1_000_000 + b'": 1}}',
        b'{"weights": {"ft:v1": 1' + b"0" * 400 + b"}}",
        b'{"weights": {"ft:v1": 1e999}}',
        b'{"weights": {"ft:v1": null}}',
        b'{"weights": null}',
        b"null",
    ],
)
def test_an_alias_of_any_text_is_refused(http: httpx.Client, body: bytes) -> None:
    for name in ("ft:alias", "ft:%00", "x", "ft:%ED%A0%BD", "ft:%0D%0Ax"):
        answer = http.put(f"/admin/adapters/aliases/{name}", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 404), answer.text
        assert len(answer.content) < 10_000


@pytest.mark.parametrize("name", ["ft:%00", "ft:%1B%5B31m", "ft:%ED%A0%BD", "%E2%80%A8", "ft:" + "x" * 5000])
def test_names_in_a_url_are_not_found(http: httpx.Client, name: str) -> None:
    for method, path in (
        ("GET", f"/admin/adapters/{name}"),
        ("DELETE", f"/admin/adapters/{name}"),
        ("POST", f"/admin/adapters/{name}/load"),
        ("POST", f"/admin/adapters/{name}/unpin"),
        ("GET", f"/admin/adapters/aliases/{name}"),
        ("DELETE", f"/admin/adapters/aliases/{name}"),
        ("POST", f"/admin/adapters/aliases/{name}/rollback"),
    ):
        answer = http.request(method, path)
        assert answer.status_code == 404, (method, path, answer.text)
        assert answer.json()["error"]["code"] == "model_not_found"


def test_null_is_absent(served: InProcess, http: httpx.Client, folder: Path) -> None:
    target = served.adapter_root / folder.name
    folder.rename(target)
    body = {"name": NAME, "path": str(target), "owned_by": None, "metadata": None}
    assert http.post("/admin/adapters", json=body).status_code == 200
    refused(http.post("/admin/adapters", json={"name": NAME, "path": None}), "path", "Missing required parameter")
    refused(http.post("/admin/adapters", json={**body, "metadata": {}}), "metadata")

    weights = {NAME: 100, "ft:smollm2-135m-instruct:acme:none:a1": None}
    pointed = http.put("/admin/adapters/aliases/ft:null", json={"weights": weights, "previous": None})
    assert pointed.status_code == 200, pointed.text
    assert pointed.json()["weights"] == {NAME: 100}
    assert http.delete("/admin/adapters/aliases/ft:null").status_code == 200

    half = http.post("/admin/keys", content=b'{"name": "k", "' + HALF + b'": 1}')
    assert half.status_code == 400, half.text
    made = http.post("/admin/keys", json={"name": "k", "admin": None, "expires_at": None})
    assert made.status_code == 200, made.text
    assert made.json()["admin"] is False


def test_paths_that_cannot_be_read_are_named(served: InProcess, http: httpx.Client, folder: Path) -> None:
    root = served.adapter_root
    loop = root / "loop"
    loop.symlink_to(loop)
    outside = root / "outside"
    outside.symlink_to("/etc")
    file = root / "file"
    file.write_text("x")
    try:
        for path in (loop, outside, file, root / "none", root / ("x" * 300), Path("relative"), Path("~")):
            answer = http.post("/admin/adapters", json={"name": NAME, "path": str(path)})
            assert answer.status_code == 400, (path, answer.text)
    finally:
        for one in (loop, outside, file):
            one.unlink()


BROKEN = ("{% for m in messages %}", "{{ messages", "{% nonsense %}", "{% if a %}" * 120 + "x" + "{% endif %}" * 120)


@pytest.mark.parametrize("template", BROKEN, ids=["open", "cut", "unknown", "deep"])
def test_a_broken_template_is_refused_when_it_comes(template: str, http: httpx.Client, folder: Path) -> None:
    manifest = json.dumps({"chat_template": template}).encode()
    answer = upload(http, {**contents(folder), "manifest.json": manifest})
    refused(answer, "manifest.json.chat_template", "is no Jinja template")


def test_another_tools_manifest_is_left_alone(http: httpx.Client, folder: Path) -> None:
    foreign = json.dumps({"version": 2, "files": [WEIGHTS]}).encode()
    assert upload(http, {**contents(folder), "manifest.json": foreign}).status_code == 200
    http.delete(f"/admin/adapters/{NAME}")
    mistyped = json.dumps({"system_promt": "Be brief."}).encode()
    refused(upload(http, {**contents(folder), "manifest.json": mistyped}), "manifest.json.system_promt")


def test_a_snapshot_of_a_cache_is_links_into_it(served: InProcess, http: httpx.Client, folder: Path) -> None:
    cache = served.adapter_root / "models--me--mine"
    blobs, snapshot = cache / "blobs", cache / "snapshots" / ("a" * 40)
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, name in enumerate((CONFIG, WEIGHTS)):
        (folder / name).rename(blobs / f"{number:040d}")
        (snapshot / name).symlink_to(f"../../blobs/{number:040d}")
    answer = http.post("/admin/adapters", json={"name": NAME, "path": str(snapshot)})
    assert answer.status_code == 200, answer.text
    stored = served.data / "adapters" / answer.json()["digest"]
    assert not any(file.is_symlink() for file in stored.iterdir())
    http.delete(f"/admin/adapters/{NAME}")

    for target, word in (("/etc/passwd", "out of the allowed folders"), ("../../blobs/none", "ends nowhere")):
        (snapshot / CONFIG).unlink()
        (snapshot / CONFIG).symlink_to(target)
        refused(http.post("/admin/adapters", json={"name": NAME, "path": str(snapshot)}), CONFIG, word)


def test_what_a_crash_left_of_an_upload_is_swept(smollm2_base: BaseModel, tokenizer: Any, tmp_path: Path) -> None:
    left = tmp_path / "state" / "upload-abc"
    left.mkdir(parents=True)
    (left / WEIGHTS).write_bytes(b"half")
    with in_process(smollm2_base, ScriptedEngine(tokenizer=tokenizer), tmp_path):
        assert not left.exists()
