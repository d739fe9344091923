"""The results of checks: findings, each with its lines, and the report that they make."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

from pydantic import BaseModel

from training.data.rows import Row

MAX_LINES_SHOWN = 20
# Characters with a meaning in Markdown; an underscore or a backslash within a word has none.
_MARKS = re.compile(r"[`*<~|]|\\(?=[!-/:-@\[-`{-~])|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|\[(?=[^\]]*\][(:])")

Level = Literal["error", "warning", "note"]


class Finding(BaseModel):
    """One kind of problem. `message` says what it is and what to do; `lines` are its first line numbers, from 1."""

    check: str
    level: Level
    message: str
    count: int
    lines: list[int] = []


class Lengths(BaseModel):
    """Tokens per row, prompt and answer together; all 0 if there was no tokenizer to count with."""

    total: int = 0
    median: int = 0
    p95: int = 0
    longest: int = 0
    limit: int | None = None


class DataReport(BaseModel):
    """What a file holds, and the findings; errors stop a job, warnings do not.

    `compared_with` names the validation file, if there was one.
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
        """The report as Markdown."""
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
    """A check: `add` sees each row once, then `findings` returns what was found.

    `drops` says, by line, why a cleaned copy leaves a row out; it is empty for a check that only warns.
    """

    drops: dict[int, str]

    def add(self, row: Row) -> None:
        """See a row."""
        ...

    def findings(self, rows: int) -> Iterable[Finding]:
        """What was found in `rows` rows."""
        ...


def found(check: str, level: Level, lines: Sequence[int], message: str) -> Iterable[Finding]:
    """A finding about these lines; none if there are no lines."""
    if lines:
        yield Finding(check=check, level=level, message=message, count=len(lines), lines=list(lines[:MAX_LINES_SHOWN]))


def literal(text: str) -> str:
    """Text escaped for Markdown, since messages quote rows, in which `<b>` or `*` may occur."""
    return _MARKS.sub(r"\\\g<0>", " ".join(text.splitlines()))


def shown(lines: Sequence[int], count: int) -> str:
    """`1, 5, 9 and 12 more`."""
    more = f" and {count - len(lines)} more" if count > len(lines) else ""
    return ", ".join(map(str, lines)) + more
