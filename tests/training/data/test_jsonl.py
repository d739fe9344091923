"""Files as people's tools write them: read where they are JSONL in UTF-8, else refused with what they are."""

import bz2
import gzip
import io
import json
import lzma
import tracemalloc
import zipfile
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from training.data import reading
from training.data.check import check
from training.data.jsonl import NotJsonLines, lines, load, quoted
from training.errors import InvalidTrainingData

BOM = "\ufeff"


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def values(path: Path, content: str | bytes) -> list[tuple[int, Any]]:
    return [(number, load(text)) for number, text in lines(written(path, content))]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"a":1}\n{"a":2}\n', [(1, 1), (2, 2)]),
        ('{"a":1}\n{"a":2}', [(1, 1), (2, 2)]),
        ('{"a":1}\r\n{"a":2}\r\n', [(1, 1), (2, 2)]),
        ('{"a":1}\r{"a":2}\r', [(1, 1), (2, 2)]),
        (f'{BOM}{{"a":1}}\n{{"a":2}}', [(1, 1), (2, 2)]),
        (f'{BOM}{{"a":1}}\r\n\r\n \t\r\n{BOM}{{"a":2}}\r\n', [(1, 1), (4, 2)]),
        (f'{BOM}\n{BOM}{BOM}{{"a":1}}{BOM}\n', [(2, 1)]),
        (f'{{"a":1}}{BOM}{{"a":2}}\n{{"a":3}}', [(1, 1), (1, 2), (2, 3)]),
        ('{"a":1}{"a":2} {"a":3}\n', [(1, 1), (1, 2), (1, 3)]),
        ('{"a":"}{"}\n', [(1, "}{")]),
        ('{"a":"x\u2028y\u2029z\x85\x0bq"}\n'.replace("\x0b", "\\u000b"), [(1, "x\u2028y\u2029z\x85\x0bq")]),
        ('{"a":"\\u0000\\u001f\u202e\u200f\ufeff"}', [(1, "\0\x1f\u202e\u200f\ufeff")]),
        ('{"a":"\\ud83d\\ude00"}', [(1, "😀")]),
        ('{"a":"\\\\ud83d"}', [(1, "\\ud83d")]),
        ("", []),
        (BOM, []),
    ],
)
def test_what_is_read(content: str, found: list[tuple[int, Any]], tmp_path: Path) -> None:
    assert values(tmp_path / "f", content) == [(number, {"a": value}) for number, value in found]


def workbook() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return stream.getvalue()


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as zipped:
        zipped.writestr("train.jsonl", "{}")
    return stream.getvalue()


ROW = '{"a":"é"}\n'
OTHERS: dict[str, tuple[bytes, str]] = {
    "UTF-16 LE": (ROW.encode("utf-16"), "is UTF-16"),
    "UTF-16 BE": (b"\xfe\xff" + ROW.encode("utf-16-be"), "is UTF-16"),
    "UTF-16 LE without a mark": (ROW.encode("utf-16-le"), "is UTF-16"),
    "UTF-16 BE without a mark": (ROW.encode("utf-16-be"), "is UTF-16"),
    "UTF-32": (ROW.encode("utf-32"), "is UTF-32"),
    "UTF-32 BE without a mark": (ROW.encode("utf-32-be"), "is UTF-32"),
    "gzip": (gzip.compress(ROW.encode()), "is gzip data"),
    "bzip2": (bz2.compress(ROW.encode()), "is bzip2 data"),
    "xz": (lzma.compress(ROW.encode()), "is xz data"),
    "zip": (archive(), "is a ZIP archive"),
    "broken zip": (b"PK\x03\x04", "is a ZIP archive"),
    "xlsx": (workbook(), "is an Excel workbook"),
    "parquet": (b"PAR1\x15\x04", "is a Parquet file"),
    "html": (b"\n<!doctype html>", "is HTML or XML"),
    "array": (b'[{"a": 1}, {"a": 2}]', "is one JSON array"),
    "array over lines": (b'\xef\xbb\xbf[\n  {"a": 1},\n  {"a": 2}\n]', "is one JSON array"),
    "indented": (b'{\n  "a": 1\n}\n', "row over several lines"),
}


@pytest.mark.parametrize(("content", "complaint"), OTHERS.values(), ids=OTHERS.keys())
def test_what_is_no_jsonl_is_refused_with_what_it_is(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = written(tmp_path / "f.jsonl", content)
    with pytest.raises(NotJsonLines, match=f"{complaint}.*UTF-8"):
        list(lines(path))
    with pytest.raises(InvalidTrainingData, match=complaint) as failed:
        reading.read(path, "supervised", "validation_file")
    assert failed.value.code == "invalid_validation_file"
    assert [(one.check, one.level) for one in check(path, clean=tmp_path / "clean").findings] == [
        ("format", "error"),
        ("too_few_rows", "error"),
    ]
    assert not (tmp_path / "clean").exists()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"a":"é"}'.encode("latin-1"), "byte 0xE9 at character 7 is no UTF-8; save the file as UTF-8"),
        (b"\xff\xfe{\0}\0", "byte 0xFF at character 1 is no UTF-8"),
        (b'{"a":1}\0\0', "NUL bytes, as UTF-16 has them; save the file as UTF-8"),
        (b'{"a":"\\ud83d"}', r"'\\ud83d' is half of a character"),
        (b'{"a":{"\\uDE00 x":[]}}', r"'\\ude00' is half of a character"),
        (b'{"a":NaN}', "NaN is no JSON"),
        (b'{"a":1,"a":2}', "the key 'a' stands twice"),
        (b'{"a":"x\ty"}', "not JSON: Invalid control character"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' + b"9" * 5_000 + b"}", "not JSON: Exceeds the limit"),
    ],
)
def test_a_line_that_cannot_be_read_says_why(line: bytes, complaint: str, tmp_path: Path) -> None:
    found = list(lines(written(tmp_path / "f", b'{"a":0}\n' + line)))
    assert [number for number, _ in found] == [1, 2]
    with pytest.raises(ValueError, match=complaint):
        load(found[1][1])


def test_glued_objects_take_no_longer_than_their_length(tmp_path: Path) -> None:
    """A file without any newline: with a copy of the rest for each object it would take minutes."""
    assert len(values(tmp_path / "f", '{"a":1}' * 100_000)) == 100_000


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
def test_a_line_that_is_too_long_is_its_own_error_and_read_no_further(end: str, tmp_path: Path) -> None:
    fits = '{"a":"é"}'
    path = written(tmp_path / "f", f'{fits}\n{fits[:-2]}é"}}{end}' + (f"{end}{fits}" if end else ""))
    found = list(lines(path, max_characters=len(fits)))
    assert found[0] == (1, fits)
    assert found[1] == (2, '{"a":"éé"}')
    assert found[2:] == ([(4, fits)] if end else [])
    with pytest.raises(ValueError, match="longer than 9 characters; write one JSON object a line, or a shorter one"):
        load(found[1][1], max_characters=len(fits))


def test_a_file_without_line_ends_takes_bounded_memory(tmp_path: Path) -> None:
    """Neither a line without an end nor one of millions of objects is held as a whole."""
    path = written(tmp_path / "f", "{}" * 10_000_000)
    tracemalloc.start()
    assert [len(text) for _, text in lines(path, max_characters=1_000_000)] == [1_000_001]
    assert list(islice(lines(path, max_characters=20_000_000), 3)) == [(1, "{}")] * 3
    assert tracemalloc.get_traced_memory()[1] < 100 * 1024**2
    tracemalloc.stop()


def test_a_line_of_too_many_values_is_not_parsed(tmp_path: Path) -> None:
    path = written(tmp_path / "f", '{"a":[1,2]}{"a":1}\n{"a":[1,2,3]}{"a":1}\n{"a":1}{"a":2}\n')
    texts = [text for _, text in lines(path, max_values=5)]
    assert texts == ['{"a":[1,2]}', '{"a":1}', '{"a":[1,2,3]}{"a":1}', '{"a":1}', '{"a":2}']


def test_a_training_row_of_megabytes_is_a_row(tmp_path: Path) -> None:
    assert values(tmp_path / "f", json.dumps({"a": "x" * 5_000_000})) == [(1, {"a": "x" * 5_000_000})]


def test_a_cleaned_copy_is_utf8_with_a_row_a_line(tmp_path: Path) -> None:
    rows = [json.dumps({"messages": [{"role": "user", "content": f"q {n}"}, {"role": "assistant", "content": f"ä{n}"}]},
                       ensure_ascii=False) for n in range(3)]  # fmt: skip
    path = written(tmp_path / "f", f"{BOM}{rows[0]}{rows[1]}\r\n\r\n{BOM}{rows[2]}\r")
    check(path, clean=tmp_path / "clean")
    assert (tmp_path / "clean").read_text(encoding="utf-8") == "".join(row + "\n" for row in rows)


def test_a_quoted_value_is_short() -> None:
    assert quoted("ab") == "'ab'"
    assert [quoted(value) for value in (None, True, False, 1, 0)] == ["null", "true", "false", "1", "0"]
    assert quoted("\ud83d") == "'\\ud83d'"
    assert len(quoted("x" * 1_000_000)) == 101
