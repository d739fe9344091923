"""The gate: what it lets through, and what it says of the rest."""

from typing import Any

import pytest

from training.job import Gate
from training.proof.evaluation import Arm, Evaluation, Forgetting, judge
from training.proof.scoring import GraderFailure
from training.proof.statistics import Comparison, compare, share_interval


def gained(share: float, n: int = 40, against: str = "base", before: float = 0.0) -> Comparison:
    right = [[1.0] * round(one * n) + [0.0] * (n - round(one * n)) for one in (before, share)]
    return compare("exact match", right[0], right[1], against)


def evaluation(
    tuned: float = 1.0, kl: float = 0.1, kept: int = 20, n: int = 40, incumbent: float | None = None, **more: Any
) -> Evaluation:
    low, high = share_interval(20 - kept, 20)
    names = ("base", "tuned") if incumbent is None else ("base", "incumbent", "tuned")
    return Evaluation(
        grader="exact match",
        rows=n,
        max_answer_tokens=512,
        arms=[Arm(name=name, model=name, cut=0) for name in names],  # pyright: ignore[reportArgumentType]
        comparisons=[gained(tuned, n)],
        incumbent=[] if incumbent is None else [gained(tuned, n, "ft:v1", incumbent)],
        forgetting=Forgetting(
            kl=kl, asked=200, known=20, kept=kept, loss=1 - kept / 20, low=low, high=high, answers=[]
        ),
        **more,
    )


def arm(name: Any, unending: int) -> Arm:
    return Arm(name=name, model=name, cut=unending, unending=unending)


FAILURE = GraderFailure(grader="exact match", rows=3, of=40, detail="model_grader_server_error: down")


def test_the_gate_lets_through_what_is_surely_better_and_forgot_little() -> None:
    assert judge(evaluation(), Gate()).passed
    assert judge(evaluation(tuned=0.5), Gate(min_score=0.4)).passed
    assert judge(evaluation(incumbent=0.5), Gate()).passed
    for unending in ((0, 4), (20, 20), (9, 5)):
        arms = [arm("base", unending[0]), arm("tuned", unending[1])]
        assert judge(evaluation().model_copy(update={"arms": arms}), Gate()).passed, unending
    assert judge(evaluation(kept=17), Gate()).passed, "3 of 20 lost, surely more than 5 %"


@pytest.mark.parametrize(
    ("result", "gate", "reason"),
    [
        (evaluation(tuned=0.0), Gate(), "exact match gained +0.000 over base"),
        (evaluation(tuned=0.5), Gate(min_score=0.8), "exact match is 0.500; the gate asks for 0.800"),
        (evaluation(tuned=0.5), Gate(min_gain=0.5), "the gate asks for a gain above 0.500"),
        (evaluation(kl=0.7), Gate(), "0.70 nats a token"),
        (evaluation(kept=14), Gate(), "it lost 30%"),
        (evaluation(n=9), Gate(), "9 rows were judged; a verdict takes 10"),
        (evaluation(tuned=0.5, incumbent=0.9), Gate(), "exact match gained -0.400 over ft:v1"),
        (
            evaluation().model_copy(update={"arms": [arm("base", 1), arm("tuned", 5)]}),
            Gate(),
            "5 of its 40 answers do not end: they went on to 512 tokens or round in circles, where 1 of",
        ),
        (evaluation(failures=[FAILURE]), Gate(), "failed on 3 of 40 rows, which are left out"),
        (Evaluation(error="OSError: no sandbox"), Gate(), "the proof broke off: OSError: no sandbox"),
        (evaluation(failures=[FAILURE]).model_copy(update={"comparisons": []}), Gate(), "failed on 3 of 40 rows"),
    ],
)
def test_the_gate_says_what_is_missing(result: Evaluation, gate: Gate, reason: str) -> None:
    verdict = judge(result, gate)
    assert not verdict.passed
    assert len(verdict.reasons) == 1
    assert reason in verdict.reasons[0]
    assert "gate is not passed" in result.headline(verdict) or "not proven" in result.headline(verdict)


def test_the_headline_says_it_in_plain_words() -> None:
    proof = evaluation(tuned=0.5, incumbent=0.9)
    said = proof.headline(judge(proof, Gate()))
    assert said.startswith("On 40 rows that the training never saw, the fine-tuned model is worse than ft:v1 by 0.400")
    assert "0 of the 20 general questions that the base answers (0%, 95 % interval 0% to 16%; 200 were asked)" in said
    assert "The gate is not passed: " in said
    better = evaluation()
    assert better.headline(judge(better, Gate())).endswith("The gate is passed.")


def test_what_is_kept_as_json_is_read_again() -> None:
    proof = evaluation(incumbent=0.5, failures=[FAILURE])
    assert Evaluation.model_validate_json(proof.model_dump_json()) == proof
