"""Checks a file before training. The file is read line by line, and every check sees every row once.

100,000 rows of 60 words take under a minute on two cores, and 6 KB of memory each. `--clean` writes the rows that no
check drops. To add a check, write a class as `findings.Check` describes, and add it to `_checks`.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from training.data.checks.answers import AnswerLengths, Boilerplate, Imbalance
from training.data.checks.duplicates import Contradictions, Duplicates
from training.data.checks.languages import Languages
from training.data.checks.private import PersonalData, Secrets
from training.data.checks.tokens import Tokens
from training.data.findings import Check, DataReport, Finding, Lengths, found
from training.data.jsonl import NotJsonLines, lines, quoted
from training.data.rows import Example, Row, parse
from training.defaults import MIN_ROWS
from training.kinds import Kind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Errors that a job with accept_findings ignores; errors of format, length and size always stop it.
ACCEPTABLE = ("secrets", "leakage")


class _Format:
    """Lines that are no rows; `check` adds them, since there is no row to see."""

    def __init__(self) -> None:
        self.drops: dict[int, str] = {}
        self.whole: str | None = None  # what the file is, if not JSONL

    def findings(self) -> Iterable[Finding]:
        """The findings about lines that cannot be read."""
        if self.whole:
            yield Finding(check="format", level="error", message=self.whole, count=1)
        kinds = Counter(self.drops.values())
        common = "; ".join(f"{why} ({count}x)" if count > 1 else why for why, count in kinds.most_common(5))
        yield from found("format", "error", list(self.drops), f"{len(self.drops)} lines cannot be read: {common}")


class _Roles:
    """Turns in an order that a chat never has: the model would learn to answer itself, or nobody."""

    def __init__(self) -> None:
        self.drops: dict[int, str] = {}
        self._lines: list[int] = []

    def add(self, row: Row) -> None:
        """See a row."""
        messages = row.messages if isinstance(row, Example) else row.prompt
        roles = [message.role for message in messages if message.role != "tool" and not message.calls]
        talk = [role for role in roles if role not in ("system", "developer")]
        repeated = any(first == second for first, second in pairwise(talk))
        late = any(role in ("system", "developer") for role in roles[1:])
        if repeated or late or talk[:1] == ["assistant"]:
            self._lines.append(row.line)

    def findings(self, rows: int) -> Iterable[Finding]:
        """What was found."""
        yield from found(
            "role_order",
            "warning",
            self._lines,
            f"{len(self._lines)} rows do not go system, user, assistant, user, assistant: one speaks twice, the "
            "assistant first, or a system message comes late",
        )


class _Unread:
    """Keys that nothing reads, so neither training nor serving uses them."""

    def __init__(self) -> None:
        self.drops: dict[int, str] = {}
        self._lines: list[int] = []
        self._keys: Counter[str] = Counter()

    def add(self, row: Row) -> None:
        """See a row."""
        if row.unread:
            self._lines.append(row.line)
            self._keys.update(row.unread)

    def findings(self, rows: int) -> Iterable[Finding]:
        """What was found."""
        keys = ", ".join(f"{quoted(key)} ({count}x)" for key, count in self._keys.most_common(5))
        yield from found(
            "unread_fields",
            "warning",
            self._lines,
            f"{len(self._lines)} rows have fields that training does not read: {keys}. What they say must stand in a "
            "content, or is not learnt",
        )


def check(
    path: Path,
    kind: Kind = "supervised",
    *,
    validation: Path | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    limit: int = 0,
    clean: Path | None = None,
    dropped: Callable[[int, str], object] = lambda line, why: None,
) -> DataReport:
    """Check a file of rows.

    Args:
        kind: the training method that the rows are for.
        validation: a file whose rows must not be in `path`.
        tokenizer, limit: to count tokens, and how many fit; None: tokens are not counted.
        clean: where to write a copy without the rows that checks drop; it appears whole or not at all.
        dropped: called for each line that the copy leaves out, in order.
    """
    form = _Format()
    checks, tokens = _checks(validation, kind, tokenizer, limit)
    rows = 0
    try:
        for number, text in lines(path):
            try:
                row = parse(text, number, kind)
            except ValueError as error:
                form.drops[number] = str(error)
                continue
            rows += 1
            for one in checks:
                one.add(row)
    except NotJsonLines as error:
        form.whole, clean = str(error), None
    findings = [*form.findings(), *(finding for one in checks for finding in one.findings(rows))]
    if rows < MIN_ROWS:
        few = f"only {rows} rows can be trained on; at least {MIN_ROWS} are needed"
        findings.append(Finding(check="too_few_rows", level="error", message=few, count=rows))
    if clean is not None:
        _write_clean(path, clean, [form.drops, *(one.drops for one in checks)], dropped)
    return DataReport(
        file=path.name,
        compared_with=validation.name if validation else None,
        rows=rows,
        tokens=tokens.lengths() if tokens else Lengths(),
        findings=findings,
    )


def _checks(
    validation: Path | None, kind: Kind, tokenizer: "PreTrainedTokenizerBase | None", limit: int
) -> tuple[list[Check], Tokens | None]:
    tokens = Tokens(tokenizer, limit) if tokenizer else None
    checks: list[Check] = [
        _Roles(),
        _Unread(),
        Secrets(),
        Duplicates(_readable(validation, kind) if validation else ()),
        Contradictions(),
        Boilerplate(),
        AnswerLengths(),
        Imbalance(),
        Languages(),
        PersonalData(),
    ]
    return ([tokens, *checks] if tokens else checks), tokens


def _readable(path: Path, kind: Kind) -> Iterable[Row]:
    """The rows of a validation file that can be read; its faults are reported when that file is checked."""
    try:
        for number, text in lines(path):
            with suppress(ValueError):
                yield parse(text, number, kind)
    except NotJsonLines:
        return


def _write_clean(path: Path, clean: Path, drops: list[dict[int, str]], dropped: Callable[[int, str], object]) -> None:
    partial = clean.with_name(clean.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            for number, text in lines(path):
                why = next((reasons[number] for reasons in drops if number in reasons), None)
                if why is None:
                    stream.write(text + "\n")
                else:
                    dropped(number, why)
        partial.replace(clean)
    finally:
        partial.unlink(missing_ok=True)
