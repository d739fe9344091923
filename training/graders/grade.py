"""`grade`: a grader, answers and their rows in, a score for each out.

An answer that lacks what the grader reads scores 0. Where the grader itself fails, the grade says so:
its 0 is no score.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.graders import formula, judge, models, sandbox, similarity
from training.graders.templates import InvalidPath, fill, sample_of

# What OpenAI's answer can name; the first five happen here.
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
    """A score, those it was made of, and what went wrong (with its details) where something did.

    `tokens` are those that judges took, by model. `failed`: the grader did, or its judge, and `score` means nothing; an
    answer that holds no JSON where the grader reads some is at fault itself.
    """

    score: float
    parts: dict[str, float] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    failed: bool = False


def require(grader: models.Grader, asked: judge.Judge | None) -> None:
    """Ask before hours are spent whether this machine can run the grader.

    Raises:
        BrokenSource: a Python grader's does not load.
        JudgeUnavailable: a score_model or label_model grader, and there is no judge.
        SandboxUnavailable: a Python grader, and this machine cannot confine it.
    """
    for one in _parts(grader):
        if isinstance(one, models.ScoreModel | models.LabelModel):
            judge.require(asked)
    check_sources(grader)


def check_sources(grader: models.Grader) -> None:
    """Load the sources of Python graders where they will run, and grade nothing.

    Raises:
        BrokenSource: one does not load.
        SandboxUnavailable: this machine cannot confine it.
    """
    for one in _parts(grader):
        if isinstance(one, models.Python):
            sandbox.check(one.source)


def _parts(grader: models.Grader) -> Iterable[models.Grader]:
    return grader.graders.values() if isinstance(grader, models.Multi) else (grader,)


def grade(
    grader: models.Grader, items: Sequence[dict[str, Any]], answers: Sequence[str], asked: judge.Judge | None = None
) -> list[Grade]:
    """Grade each answer beside its row.

    Args:
        items: the rows' own fields, the `item` of templates.
        answers: the model's texts, the `sample.output_text`.
        asked: the judge of score_model and label_model graders.

    Raises:
        SandboxUnavailable: a Python grader, and this machine cannot confine it.
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
