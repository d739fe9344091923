"""`grade`: scores answers by a grader, given the answers and their rows.

An answer without the parts that the grader reads scores 0. If the grader itself fails, the grade's `failed` is set, and
its score means nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.graders import formula, judge, models, sandbox, similarity
from training.graders.templates import InvalidPath, fill, sample_of

# The errors in OpenAI's answer; only the first five can happen here.
FAULTS = (
    "formula_parse_error",
    "invalid_variable_error",
    "model_grader_parse_error",
    "model_grader_server_error",
    "python_grader_runtime_error",
    "model_grader_refusal_error",
    "python_grader_server_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
    "other_error",
)


@dataclass(frozen=True)
class Grade:
    """A score, the scores that it was computed from, and errors with their details.

    `tokens` counts the judges' tokens, by model. `failed`: the grader or its judge failed, and `score` means nothing.
    An answer without the JSON that the grader reads is the answer's fault, not a failure.
    """

    score: float
    parts: dict[str, float] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    failed: bool = False


def require(grader: models.Grader, asked: judge.Judge | None) -> None:
    """Check, before hours are spent, whether this machine can run the grader.

    Raises:
        BrokenSource: a Python grader's source does not load.
        JudgeUnavailable: the grader needs a judge, and there is none.
        SandboxUnavailable: the grader is Python code, and this machine cannot confine it.
    """
    for one in _parts(grader):
        if isinstance(one, models.ScoreModel | models.LabelModel):
            judge.require(asked)
    check_sources(grader)


def check_sources(grader: models.Grader) -> None:
    """Load the sources of Python graders in the sandbox, without grading.

    Raises:
        BrokenSource: one does not load.
        SandboxUnavailable: this machine cannot confine Python code.
    """
    for one in _parts(grader):
        if isinstance(one, models.Python):
            sandbox.check(one.source)


def _parts(grader: models.Grader) -> Iterable[models.Grader]:
    return grader.graders.values() if isinstance(grader, models.Multi) else (grader,)


def grade(
    grader: models.Grader, items: Sequence[dict[str, Any]], answers: Sequence[str], asked: judge.Judge | None = None
) -> list[Grade]:
    """Grade each answer to its row.

    Args:
        items: the rows' fields, which templates call `item`.
        answers: the model's texts, which templates call `sample.output_text`.
        asked: the judge for score_model and label_model graders.

    Raises:
        SandboxUnavailable: the grader is Python code, and this machine cannot confine it.
    """
    samples = [sample_of(answer) for answer in answers]
    if isinstance(grader, models.Multi):
        return _multi(grader, items, answers, asked)
    if isinstance(grader, models.Python):
        verdicts = sandbox.run(grader.source, list(zip(samples, items, strict=True)))
        return [_python(grader.name, verdict) for verdict in verdicts]
    return [_one(grader, item, sample, asked) for item, sample in zip(items, samples, strict=True)]


def _one(
    grader: models.StringCheck | models.TextSimilarity | models.ScoreModel | models.LabelModel,
    item: dict[str, Any],
    sample: dict[str, Any],
    asked: judge.Judge | None,
) -> Grade:
    try:
        if isinstance(grader, models.ScoreModel | models.LabelModel):
            ask: Any = judge.score if isinstance(grader, models.ScoreModel) else judge.label
            value, tokens = ask(asked, grader, item, sample)
            return Grade(value, {grader.name: value}, tokens={grader.model: tokens})
        text, reference = fill(grader.input, item, sample), fill(grader.reference, item, sample)
    except InvalidPath as error:
        return _fault(grader.name, "invalid_variable_error", error, failed=not error.in_answer)
    except judge.JudgeRefused as error:
        return _fault(grader.name, "model_grader_parse_error", error)
    except judge.JudgeUnavailable as error:
        return _fault(grader.name, "model_grader_server_error", error)
    if isinstance(grader, models.StringCheck):
        value = float(_compares(grader.operation, text, reference))
    else:
        try:
            value = similarity.similarity(grader.evaluation_metric, text, reference)
        except similarity.TooLong as error:
            return _fault(grader.name, "other_error", error)
    return Grade(value, {grader.name: value})


def _fault(name: str, kind: str, error: Exception, failed: bool = True) -> Grade:
    return Grade(0.0, {name: 0.0}, {kind: str(error)}, failed=failed)


def _compares(operation: str, text: str, reference: str) -> bool:
    if operation == "eq":
        return text == reference
    if operation == "ne":
        return text != reference
    if operation == "like":
        return reference in text
    return reference.casefold() in text.casefold()


def _python(name: str, verdict: sandbox.Verdict) -> Grade:
    faults: dict[str, str] = {"python_grader_runtime_error": verdict.error} if verdict.error else {}
    return Grade(verdict.score, {name: verdict.score}, faults, failed=bool(verdict.error))


def _multi(
    grader: models.Multi, items: Sequence[dict[str, Any]], answers: Sequence[str], asked: judge.Judge | None
) -> list[Grade]:
    columns = {name: grade(part, items, answers, asked) for name, part in grader.graders.items()}
    grades: list[Grade] = []
    for index in range(len(items)):
        row = {name: column[index] for name, column in columns.items()}
        parts = {name: one.score for name, one in row.items()}
        faults: dict[str, str] = {fault: text for one in row.values() for fault, text in one.faults.items()}
        failed = any(one.failed for one in row.values())
        tokens: dict[str, int] = {}
        for one in row.values():
            for model, count in one.tokens.items():
                tokens[model] = tokens.get(model, 0) + count
        try:
            value = formula.calculate(grader.calculate_output, parts)
        except formula.InvalidFormula as error:
            value, faults, failed = 0.0, {**faults, "formula_parse_error": str(error)}, True
        grades.append(Grade(value, parts, faults, tokens, failed))
    return grades
