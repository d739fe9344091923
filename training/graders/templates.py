"""`{{ item.answer }}` and `{{ sample.output_json.city }}`: paths into the row and into the model's answer.

A path is all that OpenAI's templates hold, so a path is all we read: no expression of a user's is ever evaluated.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from training.errors import TrainingError

MAX_FILLED_CHARACTERS = 10_000_000  # ten thousand holes fit into a template, and a row may have a megabyte for each

_HOLE = re.compile(r"\{\{([^{}]*)\}\}")  # no brace within: a search takes as long as the template, no longer
_PATH = re.compile(r"(item|sample)((?:\.\w+|\[\d+\]|\[(?:'[^']*'|\"[^\"]*\")\])*)")
_ANSWERS = re.compile(r"sample(?:\.output_json|\[['\"]output_json['\"]\])(?=[.\[])")
_HALF = re.compile("[\ud800-\udfff]")  # an answer's JSON may hold one, escaped
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\[(?:'([^']*)'|\"([^\"]*)\")\]")


class InvalidPath(TrainingError, ValueError):
    """A template names what is not there; the message says which path and what is there instead.

    `in_answer`: it is the model's answer that lacks it, in the JSON that was read of it or by being none.
    """

    in_answer = False


def check_template(template: str) -> None:
    """Refuse a template whose holes are no paths into `item` or `sample`.

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
    """The template with its holes filled; what is no string is written as JSON, half of a character as U+FFFD.

    Args:
        item: the row's own fields.
        sample: of `sample_of`.

    Raises:
        InvalidPath: a path leads nowhere, or all together to `MAX_FILLED_CHARACTERS`.
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
    """The `sample` of an answer: `output_text`, and `output_json` where the text is JSON (else None)."""
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
