"""What a check says: findings, each with its lines, and the report they make."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

from pydantic import BaseModel

from training.data.rows import Row

MAX_LINES_SHOWN = 20
# What begins something in Markdown: not an underscore or a backslash within a word.
_MARKS = re.compile(r"[`*<~|]|\\(?=[!-/:-@\[-`{-~])|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|\[(?=[^\]]*\][(:])")

Level = Literal["error", "warning", "note"]


class Finding(BaseModel):
    """One kind of thing in the data. `message` says what and what to do; `lines` are the first ones, from 1."""

    check: str
    level: Level
    message: str
    count: int
    lines: list[int] = []


class Lengths(BaseModel):
    """Tokens a row, prompt and answer together; 0 for all where no model was given to count with."""

    total: int = 0
    median: int = 0
    p95: int = 0
    longest: int = 0
    limit: int | None = None


class DataReport(BaseModel):
    """What a file holds and what is suspicious in it; errors stop a job, warnings do not.

    `compared_with` names the validation file, where there was one.
    """

    file: str
    compared_with: str | None = None
    rows: int
    tokens: Lengths = Lengths()
    findings: list[Finding] = []

    @property
    def errors(self) -> list[Finding]:
        """The findings that stop a job."""
        return [finding for finding in self.findings if finding.level == "error"]

    def markdown(self) -> str:
        """The report for people."""
        tokens = self.tokens
        lines = [f"**{self.rows:,} rows**"]
        if tokens.total:
            lines[0] += (
                f", {tokens.total:,} tokens: {tokens.median} a row in the median, {tokens.p95} at the 95th percentile, "
                f"{tokens.longest} at most" + (f" ({tokens.limit} fit)" if tokens.limit else "")
            )
        for finding in sorted(self.findings, key=lambda one: ("error", "warning", "note").index(one.level)):
            where = (
                f" (line{'s' if finding.count > 1 else ''} {shown(finding.lines, finding.count)})"
                if finding.lines
                else ""
            )
            lines.append(f"- **{finding.level}** `{finding.check}`: {literal(finding.message)}{where}")
        if not self.findings:
            lines.append("- nothing suspicious was found")
        return "\n".join(lines)


class Check(Protocol):
    """One look at all rows: `add` sees each once, then `findings` speaks.

    `drops` says, by line, why a cleaned copy leaves a row out; a check that only warns leaves it empty.
    """

    drops: dict[int, str]

    def add(self, row: Row) -> None:
        """See a row."""
        ...

    def findings(self, rows: int) -> Iterable[Finding]:
        """What was found in `rows` rows."""
        ...


def found(check: str, level: Level, lines: Sequence[int], message: str) -> Iterable[Finding]:
    """A finding about these lines; none where there are none."""
    if lines:
        yield Finding(check=check, level=level, message=message, count=len(lines), lines=list(lines[:MAX_LINES_SHOWN]))


def literal(text: str) -> str:
    """Text that Markdown shows as it stands: messages quote people's rows, `<b>` and `*` among them."""
    return _MARKS.sub(r"\\\g<0>", " ".join(text.splitlines()))


def shown(lines: Sequence[int], count: int) -> str:
    """`1, 5, 9 and 12 more`."""
    more = f" and {count - len(lines)} more" if count > len(lines) else ""
    return ", ".join(map(str, lines)) + more
