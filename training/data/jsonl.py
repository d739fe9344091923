"""Reads JSONL as various tools write it: the lines of a file, and the value of each.

Accepted: a byte order mark at the start of any line, line ends of Windows and old Macs, blank lines, and files joined
without a newline. Lines end at CR and LF only, since U+2028 and U+0085 may be inside strings. A file that is not UTF-8
or not JSONL is refused; the message says what it is and what to do.
"""

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from training.errors import TrainingError
from training.wire import more_values

MAX_LINE_CHARACTERS = 64 * 1024**2
_BOM = "\ufeff"
_WHITE = f" \t\r\n\f\v\x85\xa0\u2028\u2029{_BOM}"
_MAX_QUOTED = 100
_SKIPPED_CHARACTERS = 1 << 20  # at a time, of a line that is too long
_DIRECTORY_BYTES = 1 << 16  # a workbook's list of files, at its end
_WORDS = {None: "null", True: "true", False: "false"}  # JSON's words for Python's
_WANTED = "expected JSONL: UTF-8 text with one JSON object a line"
_SIGNATURES = {
    b"\x1f\x8b": "gzip data",
    b"PK\x03\x04": "a ZIP archive",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ\x00": "xz data",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"Rar!": "a RAR archive",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"Obj\x01": "an Avro file",
    b"\x89HDF": "an HDF5 file",
    b"\xd0\xcf\x11\xe0": "an old Office file",
    b"SQLite format 3": "a SQLite database",
    b"%PDF": "a PDF",
    b"<": "HTML or XML",
}
# The longest first, since UTF-32's little-endian mark begins with UTF-16's.
_WIDE = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_GLUED = re.compile(rf"\}}[{_WHITE}]*\{{")  # the end of one object and the start of another
_GAP = re.compile(f"[{_WHITE}]*")
_NO_UTF8 = re.compile("[\udc80-\udcff]")  # bytes that were not UTF-8, as `surrogateescape` reads them
_HALF = re.compile("[\ud800-\udfff]")


class NotJsonLines(TrainingError, ValueError):
    """The file is not JSONL; the message says what it is."""


def lines(
    path: Path, *, max_characters: int = MAX_LINE_CHARACTERS, max_values: int | None = None
) -> Iterator[tuple[int, str]]:
    """Line numbers, from 1 as in an editor, and the lines' texts; blank lines are left out.

    A line that holds several objects is returned once for each.

    Args:
        max_characters: of a line; of a longer one comes what is read of it, one more than that, for `load` to refuse.
        max_values: a line with more is not parsed, and comes as it is.

    Raises:
        NotJsonLines: the file is compressed, a table, UTF-16, one JSON array, or indented JSON.
    """
    with path.open("rb") as stream:
        head = stream.read(64)
    _check_head(path, head)
    # Universal newlines are CR, LF and CR LF; str.splitlines would also split at U+2028.
    with path.open(encoding="utf-8", errors="surrogateescape") as stream:
        first, number = True, 0
        while raw := stream.readline(max_characters + 1):
            number += 1
            text = raw.strip(_WHITE)
            if first and text:
                _check_first(text)
                first = False
            if len(raw) > max_characters and not raw.endswith("\n"):
                yield number, raw
                while (rest := stream.readline(_SKIPPED_CHARACTERS)) and not rest.endswith("\n"):
                    pass
            elif text:
                for one in _parted(text, max_values):
                    yield number, one


def load(text: str, *, halves: bool = False, max_characters: int = MAX_LINE_CHARACTERS) -> Any:
    """The JSON value of a line.

    Args:
        halves: accept half surrogate pairs.
        max_characters: as `lines` was given.

    Raises:
        ValueError: says what is wrong with it: too long, no UTF-8, no JSON, or half of a character in a string.
    """
    if len(text) > max_characters:
        raise ValueError(f"longer than {max_characters} characters; write one JSON object a line, or a shorter one")
    if broken := _NO_UTF8.search(text):
        byte = ord(broken.group()) - 0xDC00
        raise ValueError(f"byte 0x{byte:02X} at character {broken.start() + 1} is no UTF-8; save the file as UTF-8")
    if "\0" in text:
        raise ValueError("it holds NUL bytes, as UTF-16 has them; save the file as UTF-8")
    try:
        value = json.loads(text, parse_constant=_no_number, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("not JSON: nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"not JSON: {str(error).partition('; use sys.')[0]}") from error  # without Python's advice
    if not halves and ("\\ud" in text or "\\uD" in text):  # only an escape can hold half of a surrogate pair
        half = next(_halves(value), None)
        if half is not None:
            raise ValueError(
                f"'\\u{ord(half):04x}' is half of a character (a surrogate without its pair): the text was cut "
                "within an emoji or the like; take the half out"
            )
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object as a dict; a repeated key is refused, since one of its values would be lost."""
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {quoted(twice)} stands twice in one object")
    return value


def quoted(value: Any) -> str:
    """A value for a message, shortened to 100 characters."""
    text = _WORDS[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…"


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _halves(value: Any) -> Iterator[str]:
    """Half surrogate pairs in all strings; without recursion, since JSON may be nested as deep as Python's stack."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield from _HALF.findall(one)
        elif isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one


def _check_head(path: Path, head: bytes) -> None:
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    kind = next((kind for mark, kind in _SIGNATURES.items() if start.startswith(mark)), None)
    if kind == "a ZIP archive" and _is_workbook(path):
        kind = "an Excel workbook"
    if kind:
        raise NotJsonLines(f"the file is {kind}; {_WANTED}")
    wide = next((name for mark, name in _WIDE if head.startswith(mark)), None)
    if wide is None and b"\0" in head[:4] and head[:4].strip(b"\0"):  # no byte order mark, but JSON begins with ASCII
        wide = "UTF-32" if head[:4].count(0) == 3 else "UTF-16"
    if wide:
        raise NotJsonLines(f"the file is {wide}; {_WANTED}. Save it as UTF-8")


def _is_workbook(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _DIRECTORY_BYTES))
        return b"xl/workbook.xml" in stream.read()


def _check_first(text: str) -> None:
    if text.startswith("["):
        raise NotJsonLines(f"the file is one JSON array; {_WANTED}, without brackets around them and commas between")
    if text == "{":
        raise NotJsonLines(f"the file is JSON with a row over several lines; {_WANTED}")


def _parted(text: str, max_values: int | None) -> Iterator[str]:
    """The objects of a line: usually one, several if files were joined without a newline."""
    if not _GLUED.search(text) or (
        max_values is not None and more_values(text.encode(errors="surrogateescape"), max_values)
    ):
        yield text
        return
    decoder, start = json.JSONDecoder(), 0
    while start < len(text):
        try:
            _, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = len(text)
        yield text[start:end]
        gap = _GAP.match(text, end)
        start = gap.end() if gap else end
