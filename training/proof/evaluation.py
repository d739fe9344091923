"""What a job's proof holds: the record in `evaluation.json`, and the gate's verdict on it."""

from pydantic import BaseModel

from training.job import Gate, Verdict
from training.proof.statistics import Comparison

KL_WARNING = (
    0.2  # nats a token; half a nat is a model that speaks otherwise (our trial: 0.65 without replay, 0.135 with)
)


class Side(BaseModel):
    """One held-out row: its prompt as text, the reference, both answers, and their scores by the first grader."""

    prompt: str
    reference: str
    base: str
    tuned: str
    base_score: float
    tuned_score: float


class Forgetting(BaseModel):
    """What happened to the base's other abilities.

    Attributes:
        kl: mean Kullback-Leibler divergence from base to tuned, in nats a token of the base's own answers.
        retention: answers that hold what was expected, base against tuned.
        answers: the same questions with both answers.
    """

    kl: float
    retention: Comparison
    answers: list[Side]


class Evaluation(BaseModel):
    """Base against fine-tuned; the first comparison is the one the gate reads."""

    comparisons: list[Comparison]
    sides: list[Side]
    forgetting: Forgetting


def judge(evaluation: Evaluation, gate: Gate) -> Verdict:
    """Whether the result may take the place of another, and why not."""
    main, forgetting = evaluation.comparisons[0], evaluation.forgetting
    reasons: list[str] = []
    if not main.low > gate.min_gain:
        reasons.append(
            f"{main.grader} gained {main.difference:+.3f}, surely more than {main.low:+.3f} only; asked is a gain "
            f"above {gate.min_gain:.3f}. With n = {main.n}, a gain of {main.smallest_effect:.3f} would have shown"
        )
    if main.tuned < gate.min_score:
        reasons.append(f"{main.grader} is {main.tuned:.3f}; asked are {gate.min_score:.3f}")
    if forgetting.kl > gate.max_kl:
        reasons.append(
            f"on general prompts it is {forgetting.kl:.2f} nats a token away from its base; {gate.max_kl:.2f} are "
            "allowed. Raise replay_share, or train less"
        )
    lost = -forgetting.retention.difference
    if lost > gate.max_retention_loss:
        reasons.append(
            f"it lost {lost:.0%} of the general questions that its base answers; {gate.max_retention_loss:.0%} are "
            "allowed"
        )
    return Verdict(passed=not reasons, reasons=reasons, alias=gate.alias)
