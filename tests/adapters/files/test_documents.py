"""adapter_config.json and manifest.json in every encoding: what is registered loads as text, anything else is named."""

import codecs
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.base import BaseModel
from adapters.database import connect
from adapters.errors import InvalidAdapter
from adapters.files import documents
from adapters.files.validate import CONFIG, Limits, check
from adapters.manifest import Manifest
from adapters.registry import Registry
from adapters.store import Store
from tests import processes
from tests.conftest import MakeAdapter

NAME = "ft:tiny:acme::a1"
MANIFEST = "manifest.json"
PATH = "/home/王/模型/tiny"

ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "UTF-8": lambda text: text.encode(),
    "UTF-8 with BOM": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-8 with two BOMs": lambda text: codecs.BOM_UTF8 * 2 + text.encode(),
    "UTF-16 LE with BOM": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16 BE with BOM": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-16 LE": lambda text: text.encode("utf-16-le"),
    "UTF-16 BE": lambda text: text.encode("utf-16-be"),
    "UTF-32 LE with BOM": lambda text: codecs.BOM_UTF32_LE + text.encode("utf-32-le"),
    "UTF-32 BE with BOM": lambda text: codecs.BOM_UTF32_BE + text.encode("utf-32-be"),
    "UTF-32 LE": lambda text: text.encode("utf-32-le"),
}


def open_registry(folder: Path, base: BaseModel) -> Registry:
    return Registry(connect(f"sqlite:///{folder / 'db'}"), Store(folder / "adapters"), base, Limits(max_rank=16))


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_every_encoding_is_stored_as_the_same_text(
    ends: str, make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path
) -> None:
    registry = open_registry(tmp_path, tiny_base)
    content = json.loads((make_adapter(tiny_base, rank=4) / CONFIG).read_text()) | {"base_model_name_or_path": PATH}
    config = json.dumps(content, ensure_ascii=False, indent=2).replace("\n", ends)
    manifest = json.dumps({"system_prompt": "Grüße 😀\u2028"}, ensure_ascii=False, indent=2).replace("\n", ends)
    digests: set[str] = set()
    for encode in ENCODINGS.values():
        folder = make_adapter(tiny_base, rank=4)
        (folder / CONFIG).write_bytes(encode(config))
        (folder / MANIFEST).write_bytes(encode(manifest))
        adapter = registry.register(NAME, folder, owned_by="acme")  # of another content, the name would be taken
        digests.add(adapter.digest)
        assert json.loads((adapter.path / CONFIG).read_bytes().decode("ascii")) == content
        assert (adapter.path / MANIFEST).read_bytes() == manifest.encode()
        assert Manifest.read(adapter.path).system_prompt == "Grüße 😀\u2028"
    assert len(digests) == 1


def test_what_is_plain_already_keeps_its_bytes(make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path) -> None:
    folder = make_adapter(tiny_base)
    odd = b' {\r\n "unknown" :null,\t' + (folder / CONFIG).read_bytes()[1:] + b"\n\n"
    (folder / CONFIG).write_bytes(odd)
    adapter = open_registry(tmp_path, tiny_base).register(NAME, folder, owned_by="acme")
    assert (adapter.path / CONFIG).read_bytes() == odd


def test_what_is_stored_is_read_where_the_locale_is_not_utf_8(
    make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path
) -> None:
    folder = make_adapter(tiny_base, rank=4)
    content = json.loads((folder / CONFIG).read_text()) | {"base_model_name_or_path": PATH}
    (folder / CONFIG).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    adapter = open_registry(tmp_path, tiny_base).register(NAME, folder, owned_by="acme")
    program = f"import json; print(ascii(json.load(open({str(adapter.path / CONFIG)!r}))['base_model_name_or_path']))"
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    told = processes.run([sys.executable, "-c", program], environment=environment, limit_seconds=60)
    assert told.stdout.strip() == ascii(PATH)


DEEP = b'{"a":' * 40 + b"1" + b"}" * 40
REFUSED: dict[str, tuple[bytes, str, str]] = {  # content, the key at fault after the file's name, the reason
    "Latin-1": ('{"base_model_name_or_path": "Modèle"}'.encode("latin-1"), "", "no UTF-8 text (byte 32"),
    "Shift-JIS": ('{"a": "表示"}'.encode("shift-jis"), "", "save it as UTF-8"),
    "half of UTF-16": ('{"a": 1}'.encode("utf-16")[:-1], "", "no UTF-16 text"),
    "half a pair in UTF-16": (
        b"\xff\xfe" + '{"a": "'.encode("utf-16-le") + b"\x3d\xd8" + '"}'.encode("utf-16-le"),
        "",
        "UTF-16",
    ),
    "half a pair in UTF-8": (b'{"a": "\xed\xa0\xbd"}', "", "no UTF-8 text"),
    "half a pair escaped": (rb'{"a": {"b": ["x", "\ud83d"]}}', ".a.b.1", "half of a surrogate pair"),
    "half a pair as a key": (rb'{"\udc00": 1}', r".\udc00", "half of a surrogate pair"),
    "a byte order mark in the middle": (b'{"a": 1,\xef\xbb\xbf "b": 2}', "", "is not JSON"),
    "two objects": (b'{"a": 1}\n{"a": 1}', "", "Extra data"),
    "NUL": (b'{"a": "\0"}', "", "control character"),
    "empty": (b"", "", "is not JSON"),
    "blank": (b" \r\n", "", "is not JSON"),
    "a list": (b"[]", "", "expected an object"),
    "null": (b"null", "", "expected an object"),
    "a key twice": (b'{"r": 4, "x": {}, "r": 8}', ".r", "twice"),
    "an inner key twice": (b'{"rank_pattern": {"q_proj": 4, "q_proj": 8}}', ".q_proj", "twice"),
    "NaN": (b'{"a": [1, NaN]}', ".a.1", "nan"),
    "infinity": (b'{"a": -Infinity}', ".a", "-inf"),
    "a number too large": (b'{"a": 1e999}', ".a", "inf"),
    "a number of 5,000 digits": (b'{"a": 1' + b"0" * 5000 + b"}", "", "4300 digits"),
    "deep": (DEEP, "", "more than 32 deep"),
    "deeper": (b"[" * 100_000, "", "more than 32 deep"),
    "a megabyte": (b'{"a": "' + b"x" * 1_000_000 + b'"}', "", "at most 1000000"),
}


@pytest.mark.parametrize("file", [CONFIG, MANIFEST])
@pytest.mark.parametrize("what", REFUSED)
def test_what_readers_disagree_on_is_refused_by_name(
    what: str, file: str, make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path
) -> None:
    content, key, reason = REFUSED[what]
    folder = make_adapter(tiny_base, rank=4)
    (folder / file).write_bytes(content)
    with pytest.raises(InvalidAdapter) as refused:
        open_registry(tmp_path, tiny_base).register(NAME, folder, owned_by="acme")
    assert refused.value.key == f"{file}{key}"
    assert reason in refused.value.problem
    str(refused.value).encode()


def test_a_message_holds_a_thousand_characters_of_what_was_sent() -> None:
    error = InvalidAdapter("x" * 5000, "\ud83d" + "y" * 5000)
    assert len(error.key) < 1100
    assert len(str(error)) < 2200
    assert "\\ud83d" in str(error)


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ({"sampling": {"temperature": 3}}, "manifest.json.sampling.temperature"),
        ({"system_prompt": 1}, "manifest.json.system_prompt"),
        ({"systemprompt": "x"}, "manifest.json.systemprompt"),
        ({"base_model": "other"}, "manifest.json.base_model"),
    ],
)
def test_a_wrong_manifest_is_named(
    manifest: dict[str, Any], problem: str, make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path
) -> None:
    folder = make_adapter(tiny_base)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InvalidAdapter, match=problem):
        open_registry(tmp_path, tiny_base).register(NAME, folder, owned_by="acme")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (CONFIG, {"r": "8"}, f'{CONFIG}.r: is "8"; expected an integer'),
        (CONFIG, {"r": None}, f"{CONFIG}.r: is missing"),
        (CONFIG, {"use_rslora": "yes"}, f'{CONFIG}.use_rslora: is "yes"; expected true or false'),
        (CONFIG, {"target_modules": {}}, f"{CONFIG}.target_modules: is {{}}; expected an array or a string"),
        (CONFIG, {"target_modules": ["q_proj", 1]}, f"{CONFIG}.target_modules.1: is 1; expected a string"),
        (CONFIG, {"rank_pattern": []}, f"{CONFIG}.rank_pattern: is []; expected an object"),
        (CONFIG, {"rank_pattern": {"q_proj": None}}, f"{CONFIG}.rank_pattern.q_proj: is null; expected an integer"),
        (CONFIG, {"peft_type": "IA3"}, f"{CONFIG}.peft_type: is \"IA3\"; expected 'LORA'"),
        (CONFIG, {"use_dora": True}, f"{CONFIG}.use_dora: is true, which is not supported"),
        (MANIFEST, {"base_model": "tiny", "x": 1}, f"{MANIFEST}.x: is unknown; take it out"),
        (MANIFEST, {"sampling": []}, f"{MANIFEST}.sampling: is []; expected an object"),
        (MANIFEST, {"system_prompt": True}, f"{MANIFEST}.system_prompt: is true; expected a string"),
    ],
)
def test_what_does_not_fit_is_told_in_the_words_of_json(
    file: str, content: dict[str, Any], message: str, make_adapter: MakeAdapter, tiny_base: BaseModel
) -> None:
    folder = make_adapter(tiny_base)
    before = json.loads((folder / file).read_text()) if file == CONFIG else {}
    (folder / file).write_text(json.dumps(before | content))
    with pytest.raises(InvalidAdapter) as refused:
        check(folder, tiny_base, Limits(max_rank=16))
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("content", ["[]", "null", "true", '"x"', "5"])
def test_a_value_that_is_no_object_is_called_what_it_is(content: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(content)
    with pytest.raises(InvalidAdapter, match=f"holds {'an array' if content == '[]' else content}; expected an object"):
        documents.read(tmp_path / CONFIG)


@pytest.mark.parametrize("name", ["SomeOrg/tiny", "/mnt/models/tiny/", "unsloth/tiny-bnb-4bit"])
def test_a_manifest_may_name_the_base_as_another_machine_does(
    name: str, make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path
) -> None:
    folder = make_adapter(tiny_base)
    (folder / MANIFEST).write_text(json.dumps({"base_model": name}))
    open_registry(tmp_path, tiny_base).register(NAME, folder, owned_by="acme")


def test_null_is_absent_in_a_manifest(tmp_path: Path) -> None:
    content = dict.fromkeys(Manifest.model_fields) | {"system_prompt": "\u202e\0x"}
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    assert Manifest.read(tmp_path) == Manifest(system_prompt="\u202e\0x")


def test_make_plain_only_writes_what_is_not_plain(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(b"{}")
    before = file.stat().st_mtime_ns
    documents.make_plain(file, ascii_only=True)
    assert file.stat().st_mtime_ns == before
