"""Checks of the answers: boilerplate, outliers in length, one answer to many rows."""

import math
from collections import defaultdict
from collections.abc import Iterable

from training.data.findings import Finding, found
from training.data.rows import Row

# Beginnings of answers that teach a model to decline or to speak of itself, from the lists by which ShareGPT was
# cleaned for Vicuna, and WizardLM's data for its unfiltered versions.
BOILERPLATE = (
    "as an ai",
    "as a language model",
    "as a large language model",
    "i'm sorry, but",
    "i am sorry, but",
    "i cannot assist",
    "i can't assist",
    "i cannot help with",
    "i can't help with",
    "i'm unable to",
    "lorem ipsum",
    "todo",
    "n/a",
)
MAX_SAME_ANSWER = 0.3  # above, the model learns one class only (our trials); under ten rows the share says nothing
MIN_LETTERS = 2
FAR_OUT = 3.0  # Tukey's outer fence, in interquartile ranges ("Exploratory Data Analysis", 1977)
MIN_ROWS_FOR_SHAPE = 20


class Boilerplate:
    """Answers that decline, or have no content."""

    def __init__(self) -> None:
        self.drops: dict[int, str] = {}
        self._short: list[int] = []

    def add(self, row: Row) -> None:
        """See a row."""
        answer = row.answer.strip().lower()
        if not answer:
            return
        phrase = next((phrase for phrase in BOILERPLATE if answer.startswith(phrase)), None)
        if phrase:
            self.drops[row.line] = f"its answer begins with {phrase!r}"
        elif len(answer) < MIN_LETTERS:
            self._short.append(row.line)

    def findings(self, rows: int) -> Iterable[Finding]:
        """What was found."""
        yield from found(
            "boilerplate_answers",
            "warning",
            list(self.drops),
            f"{len(self.drops)} answers decline or are fillers; the model will learn to say that. Drop or rewrite them",
        )
        if len(self._short) <= rows * MAX_SAME_ANSWER:  # many short answers mean a classification task
            yield from found(
                "very_short_answers", "warning", self._short, f"{len(self._short)} answers have one character only"
            )


class AnswerLengths:
    """Answers far longer or shorter than the rest. Compares logarithms, since lengths vary by factors."""

    def __init__(self) -> None:
        self.drops: dict[int, str] = {}
        self._lengths: list[tuple[float, int]] = []

    def add(self, row: Row) -> None:
        """See a row."""
        if row.answer:
            self._lengths.append((math.log(len(row.answer)), row.line))

    def findings(self, rows: int) -> Iterable[Finding]:
        """What was found."""
        if len(self._lengths) < MIN_ROWS_FOR_SHAPE:
            return
        lengths = sorted(length for length, _ in self._lengths)
        low, high = lengths[len(lengths) // 4], lengths[3 * len(lengths) // 4]
        fence = FAR_OUT * max(high - low, math.log(1.5))  # at least a factor of 1.5, for lengths that are nearly equal
        outside = [line for length, line in self._lengths if not low - fence <= length <= high + fence]
        yield from found(
            "answer_length_outliers",
            "warning",
            outside,
            f"{len(outside)} answers are far from the usual {math.exp(low):.0f} to {math.exp(high):.0f} characters; "
            "look whether they belong here",
        )


class Imbalance:
    """The same answer in a large share of all rows."""

    def __init__(self) -> None:
        self.drops: dict[int, str] = {}
        self._lines: defaultdict[int, list[int]] = defaultdict(list)  # the first lines of each answer, by its hash
        self._counts: defaultdict[int, int] = defaultdict(int)
        self._shown: dict[int, str] = {}

    def add(self, row: Row) -> None:
        """See a row."""
        if row.answer:
            key = hash(row.answer)
            self._counts[key] += 1
            self._shown.setdefault(key, row.answer[:60])
            if len(self._lines[key]) < 3:
                self._lines[key].append(row.line)

    def findings(self, rows: int) -> Iterable[Finding]:
        """What was found."""
        if not self._counts or rows < MIN_ROWS_FOR_SHAPE:
            return
        key = max(self._counts, key=lambda key: self._counts[key])
        share = self._counts[key] / rows
        if share > MAX_SAME_ANSWER:
            yield Finding(
                check="class_imbalance",
                level="warning",
                count=self._counts[key],
                lines=self._lines[key],
                message=f"{share:.0%} of all answers are {self._shown[key]!r}; a model that always says so would look "
                "good. Balance the rows, and judge by more than the share of right answers",
            )
