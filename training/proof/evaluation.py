"""The record of a job's proof in `evaluation.json`, and the gate's verdict on it."""

from typing import Literal

from pydantic import BaseModel

from training.job import Gate, Verdict
from training.proof.scoring import GraderFailure
from training.proof.statistics import MIN_ROWS, Comparison

KL_WARNING = 0.2  # nats a token; at 0.5 a model speaks differently (our trial: 0.65 without replay, 0.135 with replay)


UNENDING = 0.1  # above this share, and the other arms' shares, the model has not learnt to end answers


class Arm(BaseModel):
    """A model in the proof; `cut` of its answers did not end within the limit, or repeated themselves.

    `unending`: cut answers whose reference would have fit the limit.
    """

    name: Literal["base", "incumbent", "tuned"]
    model: str
    cut: int
    unending: int = 0


class Side(BaseModel):
    """One held-out row: its prompt as text, the reference, every arm's answer, and its score by the first grader.

    A score is None if the grader failed; the incumbent's fields are None if there is none.
    """

    prompt: str
    reference: str
    base: str
    tuned: str
    base_score: float | None
    tuned_score: float | None
    incumbent: str | None = None
    incumbent_score: float | None = None

    @property
    def gain(self) -> float | None:
        """The gain over the arm with which the gate compares: the incumbent, else the base."""
        before = self.base_score if self.incumbent is None else self.incumbent_score
        return None if before is None or self.tuned_score is None else self.tuned_score - before


class Recall(BaseModel):
    """A general question; the tuned model is only asked if the base knew it, else `tuned` and `kept` are None."""

    prompt: str
    expect: str
    base: str
    knew: bool
    tuned: str | None = None
    kept: bool | None = None


class Forgetting(BaseModel):
    """What happened to the base's other abilities.

    Attributes:
        kl: mean Kullback-Leibler divergence from base to tuned, in nats per token of the base's own answers.
        asked, known, kept: all general questions, those the base answers, and those of them the result answers too.
        loss, low, high: share of the known ones that was lost, and Wilson's 95 % interval; 0 to 1 if none is known.
    """

    kl: float
    asked: int
    known: int
    kept: int
    loss: float
    low: float
    high: float
    answers: list[Recall]

    def sentence(self) -> str:
        """In words."""
        if not self.known:
            return f"Forgotten: nothing to lose, the base answers none of {self.asked} general questions"
        return (
            f"Forgotten: {self.known - self.kept} of the {self.known} general questions that the base answers "
            f"({self.loss:.0%}, 95 % interval {self.low:.0%} to {self.high:.0%}; {self.asked} were asked)"
        )


class Evaluation(BaseModel):
    """Base, incumbent if there is one, and result on the same rows.

    Attributes:
        grader: name of the first grader, by which the gate judges.
        rows: number of rows that were asked.
        max_answer_tokens: limit of every arm's answers.
        comparisons: the result against the base, by grader.
        incumbent: the result against the model it would replace: the gate's alias now, or the model it started from.
        failures: graders that failed.
        sides: rows that got worse, then those that got better, then others.
        error: the error that ended the proof.
        summary: `headline` with the gate's verdict, as report and API show it.
    """

    grader: str = ""
    rows: int = 0
    max_answer_tokens: int = 0
    arms: list[Arm] = []
    comparisons: list[Comparison] = []
    incumbent: list[Comparison] = []
    failures: list[GraderFailure] = []
    sides: list[Side] = []
    forgetting: Forgetting | None = None
    error: str | None = None
    summary: str = ""

    @property
    def main(self) -> Comparison | None:
        """The comparison that the gate uses; None if its grader failed on every row."""
        compared = self.incumbent if any(arm.name == "incumbent" for arm in self.arms) else self.comparisons
        return next((one for one in compared if one.grader == self.grader), None)

    def by_gain(self) -> tuple[list[Side], list[Side], list[Side]]:
        """The sides that got worse, those that got better, and the others."""
        gains = [side.gain or 0.0 for side in self.sides]
        pairs = list(zip(self.sides, gains, strict=True))
        return (
            [side for side, gain in pairs if gain < 0],
            [side for side, gain in pairs if gain > 0],
            [side for side, gain in pairs if not gain],
        )

    def headline(self, verdict: Verdict) -> str:
        """The main result, in one to three sentences."""
        if self.error is not None:
            return f"The fine-tuned model is not proven: {self.error}. It is kept, and the gate is not passed."
        main = self.main
        if main is None:
            return f"The fine-tuned model is not proven: {self.grader} could judge none of {self.rows} rows."
        said = f"On {main.n} rows that the training never saw, the fine-tuned model is "
        scores = f"({main.grader} {main.tuned:.3f} against {main.base:.3f})"
        if main.verdict == "too few rows":
            said += f"neither proven better nor worse than {main.against} {scores}: a verdict takes {MIN_ROWS} rows."
        elif main.verdict == "not surely different":
            said += (
                f"not surely different from {main.against} {scores}: with 95 % certainty between {main.low:+.3f} and "
                f"{main.high:+.3f}."
            )
        else:
            said += (
                f"{main.verdict} than {main.against} by {abs(main.difference):.3f} {scores}; with 95 % certainty "
                f"by {min(abs(main.low), abs(main.high)):.3f} to {max(abs(main.low), abs(main.high)):.3f}."
            )
        cost = f" {self.forgetting.sentence()}." if self.forgetting else ""
        why = "" if verdict.passed else f": {'; '.join(verdict.reasons)}"
        return f"{said}{cost} The gate is {'' if verdict.passed else 'not '}passed{why}."


def judge(evaluation: Evaluation, gate: Gate) -> Verdict:
    """Whether the result passes the gate, and if not, why."""
    main, forgetting = evaluation.main, evaluation.forgetting
    if evaluation.error is not None or forgetting is None:
        return Verdict(passed=False, reasons=[f"the proof broke off: {evaluation.error}"], alias=gate.alias)
    reasons = [failure.sentence() for failure in evaluation.failures]
    if main is None:
        return Verdict(passed=False, reasons=reasons or ["no row was held out"], alias=gate.alias)
    if main.n < MIN_ROWS:
        reasons.append(f"{main.n} rows were judged; a verdict takes {MIN_ROWS}. Add rows, or a validation file")
    elif not main.low > gate.min_gain:
        reasons.append(
            f"{main.grader} gained {main.difference:+.3f} over {main.against}, surely more than {main.low:+.3f} only; "
            f"the gate asks for a gain above {gate.min_gain:.3f}. {main.n} rows show a gain of "
            f"{main.smallest_effect:.3f} four times out of five"
        )
    unending = {arm.name: arm.unending for arm in evaluation.arms}
    of_result, of_others = unending.pop("tuned", 0), max(unending.values(), default=0)
    if of_result > max(UNENDING * evaluation.rows, of_others):
        reasons.append(
            f"{of_result} of its {evaluation.rows} answers do not end: they went on to {evaluation.max_answer_tokens} "
            f"tokens or round in circles, where {of_others} of the others' did. Look at them, and at what ends an "
            "answer in the chat template"
        )
    if main.tuned < gate.min_score:
        reasons.append(f"{main.grader} is {main.tuned:.3f}; the gate asks for {gate.min_score:.3f}")
    if forgetting.kl > gate.max_kl:
        reasons.append(
            f"on general prompts it is {forgetting.kl:.2f} nats a token away from its base; {gate.max_kl:.2f} are "
            "allowed. Raise replay_share, or train less"
        )
    if forgetting.low > gate.max_retention_loss:
        reasons.append(
            f"it lost {forgetting.loss:.0%} of the general questions that its base answers, surely more than "
            f"{forgetting.low:.0%}; {gate.max_retention_loss:.0%} are allowed. Raise replay_share, or train less"
        )
    return Verdict(passed=not reasons, reasons=reasons, alias=gate.alias)
