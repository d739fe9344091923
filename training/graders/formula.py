"""A multi grader's `calculate_output`: arithmetic over its graders' scores, with OpenAI's operators and functions."""

import ast
import math
from collections.abc import Iterable, Mapping

from simpleeval import DEFAULT_OPERATORS, SimpleEval

MAX_FORMULA_LENGTH = 1_000
_OPERATORS = {
    kind: DEFAULT_OPERATORS[kind]
    for kind in (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Mod, ast.Pow, ast.USub, ast.UAdd)
}
_FUNCTIONS = {
    "min": min, "max": max, "abs": abs, "floor": math.floor, "ceil": math.ceil,
    "exp": math.exp, "sqrt": math.sqrt, "log": math.log,
}  # fmt: skip


class InvalidFormula(ValueError):
    """The formula cannot be computed."""


def check_formula(formula: str, names: Iterable[str]) -> None:
    """Refuse a formula that is none, or that names a grader which is not there.

    Raises:
        InvalidFormula: says what is wrong.
    """
    scores = {name: 0.3 + 0.1 * index for index, name in enumerate(names)}
    try:
        calculate(formula, scores)
    except InvalidFormula as error:
        if not isinstance(error.__cause__, ZeroDivisionError):  # depends on the scores
            raise


def calculate(formula: str, scores: Mapping[str, float]) -> float:
    """The formula's value.

    Raises:
        InvalidFormula: it is none, names an unknown grader, or its value is no finite number.
    """
    if len(formula) > MAX_FORMULA_LENGTH:
        raise InvalidFormula(f"calculate_output is longer than {MAX_FORMULA_LENGTH} characters")
    evaluator = SimpleEval(operators=_OPERATORS, functions=_FUNCTIONS, names=dict(scores))
    evaluator.nodes = {kind: node for kind, node in (evaluator.nodes or {}).items() if kind is not ast.Attribute}
    try:  # OpenAI writes powers with ^
        value = float(evaluator.eval(formula.replace("^", "**")))
    except Exception as error:
        known = ", ".join(sorted(scores))
        raise InvalidFormula(f"calculate_output {formula!r}: {error}; the graders are {known}") from error
    if not math.isfinite(value):
        raise InvalidFormula(f"calculate_output {formula!r} is {value}")
    return value
