"""Tokens per row, counted with the model's own template and tokenizer, many rows at a time.

A tokenizer needs 600 bytes of memory per character, 3 GB for a row of 5 MB; so long rows are counted in pieces.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from adapters.chat import template
from training.data.findings import Finding, Lengths, found
from training.data.messages import Message
from training.data.rows import Example, Pair, Row
from training.render import tools, turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH_CHARACTERS = 500_000
PIECE_CHARACTERS = 100_000  # each cut of a longer row may add a token or two to the count
MAX_TOO_LONG = 0.1  # if more rows are over the limit, the data were made for another model


class Tokens:
    """Lengths in tokens, and the rows that do not fit."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", limit: int) -> None:
        """Count with `tokenizer`; `limit` tokens fit."""
        self.drops: dict[int, str] = {}
        self._tokenizer = tokenizer
        self._limit = limit
        self._waiting: list[tuple[int, str]] = []
        self._characters = 0
        self._counts: list[int] = []
        self._refused: list[int] = []

    def add(self, row: Row) -> None:
        """See a row."""
        try:
            text = template.render(
                self._tokenizer, turns(_messages(row)), generation_prompt=not row.answer, tools=tools(row)
            )
        except template.TemplateError as error:
            self._refused.append(row.line)
            self.drops[row.line] = str(error)
            return
        if len(text) > PIECE_CHARACTERS:
            pieces = (text[start : start + PIECE_CHARACTERS] for start in range(0, len(text), PIECE_CHARACTERS))
            self._see(row.line, sum(len(template.encode(self._tokenizer, piece)) for piece in pieces))
            return
        self._waiting.append((row.line, text))
        self._characters += len(text)
        if self._characters > BATCH_CHARACTERS:
            self._count()

    def lengths(self) -> Lengths:
        """The lengths of all rows."""
        self._count()
        if not self._counts:
            return Lengths(limit=self._limit)
        counts = sorted(self._counts)
        return Lengths(
            total=sum(counts),
            median=counts[len(counts) // 2],
            p95=counts[int(0.95 * (len(counts) - 1))],
            longest=counts[-1],
            limit=self._limit,
        )

    def findings(self, rows: int) -> Iterable[Finding]:
        """What was found."""
        self._count()
        refused = set(self._refused)
        long = [line for line in self.drops if line not in refused]
        hint = "; most of them: the data were made for a larger context" if len(long) > MAX_TOO_LONG * rows else ""
        yield from found(
            "too_long",
            "error",
            long,
            f"{len(long)} rows have more than the {self._limit} tokens that fit{hint}. Nothing is ever cut: split them",
        )
        first = self.drops[self._refused[0]] if self._refused else ""
        yield from found("template_refuses", "error", self._refused, f"{len(self._refused)} rows: {first}")

    def _count(self) -> None:
        if not self._waiting:
            return
        encoded = template.encode_all(self._tokenizer, [text for _, text in self._waiting])
        for (line, _), ids in zip(self._waiting, encoded, strict=True):
            self._see(line, len(ids))
        self._waiting.clear()
        self._characters = 0

    def _see(self, line: int, tokens: int) -> None:
        self._counts.append(tokens)
        if tokens > self._limit:
            self.drops[line] = f"{tokens} tokens, but at most {self._limit} fit"


def _messages(row: Row) -> tuple[Message, ...]:
    if isinstance(row, Example):
        return row.messages
    if isinstance(row, Pair):  # with the longer of the two answers
        return (*row.prompt, Message("assistant", max(row.answer, row.rejected, key=len)))
    return row.prompt
