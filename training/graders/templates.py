"""`{{ item.answer }}` and `{{ sample.output_json.city }}`: paths into the row and into the model's answer.

OpenAI's templates only hold paths, so we only read paths: no user's expression is ever evaluated.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from training.errors import TrainingError

MAX_FILLED_CHARACTERS = 10_000_000  # a template may have ten thousand holes, and a row a megabyte for each

_HOLE = re.compile(r"\{\{([^{}]*)\}\}")  # no brace inside, so that the search takes linear time
_PATH = re.compile(r"(item|sample)((?:\.\w+|\[\d+\]|\[(?:'[^']*'|\"[^\"]*\")\])*)")
_ANSWERS = re.compile(r"sample(?:\.output_json|\[['\"]output_json['\"]\])(?=[.\[])")
_HALF = re.compile("[\ud800-\udfff]")  # an answer's JSON may hold one, escaped
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\[(?:'([^']*)'|\"([^\"]*)\")\]")


class InvalidPath(TrainingError, ValueError):
    """A template names a field that is missing; the message says which, and which fields there are.

    `in_answer`: the field is missing in the model's answer, which may not be JSON at all.
    """

    in_answer = False


def check_template(template: str) -> None:
    """Refuse a template with a hole that is no path into `item` or `sample`.

    Raises:
        InvalidPath: names the hole.
    """
    if "{{" in _HOLE.sub("", template):
        raise InvalidPath("a {{ without its }}, or with braces between; expected paths like {{item.answer}}")
    for hole in map(str.strip, _HOLE.findall(template)):
        if _PATH.fullmatch(hole) is None:
            raise InvalidPath(
                f"{{{{{hole[:100]}}}}} is no path; expected one like {{{{item.answer}}}} or {{{{sample.output_text}}}}"
            )


def fill(template: str, item: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
    """The template with its holes filled; what is no string is written as JSON, half surrogate pairs as U+FFFD.

    Args:
        item: the row's fields.
        sample: the answer, from `sample_of`.

    Raises:
        InvalidPath: a path leads nowhere, or the filled template is longer than `MAX_FILLED_CHARACTERS`.
    """
    names = {"item": item, "sample": sample}
    length = 0

    def filled(hole: re.Match[str]) -> str:
        nonlocal length
        text = _text(_follow(hole.group(1).strip(), names))
        length += len(text)
        if length > MAX_FILLED_CHARACTERS:
            raise InvalidPath(f"the filled template has more than {MAX_FILLED_CHARACTERS} characters")
        return text

    return _HALF.sub("\ufffd", _HOLE.sub(filled, template))


def sample_of(text: str) -> dict[str, Any]:
    """The `sample` of an answer: `output_text`, and `output_json` if the text is JSON (else None)."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = None
    return {"output_text": text, "output_json": parsed}


def _follow(path: str, names: Mapping[str, Any]) -> Any:
    match = _PATH.fullmatch(path)
    if match is None:
        raise InvalidPath(f"{path!r} is no path into item or sample")
    value: Any = names[match.group(1)]
    for step in _STEP.finditer(match.group(2)):
        key = next(part for part in step.groups() if part is not None)
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, TypeError, ValueError):
            there = sorted(value)[:20] if isinstance(value, Mapping) else "what is no object"
            error = InvalidPath(f"{path!r}: no {key!r} in {there}"[:1_000])
            error.in_answer = _ANSWERS.match(path) is not None
            raise error from None
    return value


def _text(value: Any) -> str:
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise InvalidPath("what the path leads to is nested too deeply") from None
