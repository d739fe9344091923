"""A multi grader's `calculate_output`: arithmetic over its graders' scores, with OpenAI's operators and functions."""

import ast
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from simpleeval import SimpleEval

from training.errors import TrainingError

MAX_FORMULA_LENGTH = 1_000


def _in_floats(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Compute with floats only: integers are unbounded, and 9^9^9 would exhaust the machine."""
    return lambda *values: compute(*map(float, values))


_OPERATORS = {
    kind: _in_floats(compute)
    for kind, compute in (
        (ast.Add, operator.add), (ast.Sub, operator.sub), (ast.Mult, operator.mul), (ast.Div, operator.truediv),
        (ast.Mod, operator.mod), (ast.Pow, operator.pow), (ast.USub, operator.neg), (ast.UAdd, operator.pos),
    )
}  # fmt: skip
_FUNCTIONS = {
    name: _in_floats(compute)
    for name, compute in (
        ("min", min), ("max", max), ("abs", abs), ("floor", math.floor), ("ceil", math.ceil),
        ("exp", math.exp), ("sqrt", math.sqrt), ("log", math.log),
    )
}  # fmt: skip
_NODES = (ast.Expr, ast.Constant, ast.UnaryOp, ast.BinOp, ast.Call, ast.Name)


class InvalidFormula(TrainingError, ValueError):
    """The formula cannot be computed."""


def check_formula(formula: str, names: Iterable[str]) -> None:
    """Refuse a formula that is not valid, or names an unknown grader.

    Raises:
        InvalidFormula: says what is wrong.
    """
    scores = {name: 0.3 + 0.1 * index for index, name in enumerate(names)}
    try:
        calculate(formula, scores)
    except InvalidFormula as error:
        # A division by zero or the root of a negative number depends on the scores, so it is no error here.
        if not isinstance(error.__cause__, ZeroDivisionError) and "math domain error" not in str(error.__cause__):
            raise


def calculate(formula: str, scores: Mapping[str, float]) -> float:
    """The formula's value.

    Raises:
        InvalidFormula: it is not valid, names an unknown grader, or its value is not finite.
    """
    if len(formula) > MAX_FORMULA_LENGTH:
        raise InvalidFormula(f"calculate_output is longer than {MAX_FORMULA_LENGTH} characters")
    evaluator: Any = SimpleEval(operators=_OPERATORS, functions=_FUNCTIONS, names=dict(scores))
    evaluator.nodes = {kind: node for kind, node in evaluator.nodes.items() if kind in _NODES}
    try:  # OpenAI writes powers with ^
        value = float(evaluator.eval(formula.replace("^", "**")))
    except Exception as error:
        known = ", ".join(sorted(scores))[:200]
        raise InvalidFormula(f"calculate_output {formula!r}: {error}; the graders are {known}") from error
    if not math.isfinite(value):
        raise InvalidFormula(f"calculate_output {formula!r} is {value}")
    return value
