"""Grades the arms' answers and compares them, for a job's proof and for `tuneport eval`.

If a grader fails on one arm's answer, the row is left out for all arms, and counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from training.graders.grade import grade
from training.graders.judge import Judge
from training.graders.models import Grader
from training.proof.statistics import Comparison, compare

BASE, INCUMBENT, TUNED = "base", "incumbent", "tuned"


class GraderFailure(BaseModel):
    """A grader that failed on `rows` of `of` rows; `detail` is its first error."""

    grader: str
    rows: int
    of: int
    detail: str

    def sentence(self) -> str:
        """In words."""
        return f"{self.grader} failed on {self.rows} of {self.of} rows, which are left out: {self.detail}"


@dataclass(frozen=True)
class Scores:
    """One grader's scores, by arm and row; None for all arms of a row on which the grader failed."""

    grader: str
    by_arm: dict[str, list[float | None]]
    failure: GraderFailure | None = None

    def compare(self, arm: str, against: str) -> Comparison | None:
        """The result against another arm, which the text calls `against`; None if no row is left."""
        pairs = [
            (other, tuned)
            for other, tuned in zip(self.by_arm[arm], self.by_arm[TUNED], strict=True)
            if other is not None and tuned is not None
        ]
        if not pairs:
            return None
        return compare(self.grader, [pair[0] for pair in pairs], [pair[1] for pair in pairs], against)


def score(
    grader: Grader, items: Sequence[dict[str, Any]], arms: Mapping[str, Sequence[str]], judge: Judge | None
) -> Scores:
    """Grade every arm's answers.

    Args:
        items: each row's `item` for the grader's templates.
        arms: each arm's answers, one per row.

    Raises:
        SandboxUnavailable: the grader is Python code, and this machine cannot confine it.
    """
    graded = {arm: grade(grader, items, texts, judge) for arm, texts in arms.items()}
    failed = [next((one for one in row if one.failed), None) for row in zip(*graded.values(), strict=True)]
    first = next((one for one in failed if one is not None), None)
    detail = "; ".join(f"{kind}: {said}" for kind, said in first.faults.items()) if first else ""
    failures = sum(one is not None for one in failed)
    return Scores(
        grader.name,
        {
            arm: [None if bad else one.score for one, bad in zip(grades, failed, strict=True)]
            for arm, grades in graded.items()
        },
        GraderFailure(grader=grader.name, rows=failures, of=len(items), detail=detail[:500]) if failures else None,
    )
