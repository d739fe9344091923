"""Renders chat templates within a time limit: they are programs, and may loop for ever.

transformers compiles a template for its sandbox; we add a look at the clock to each loop round and macro call.
"""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template, nodes

MAX_SECONDS = 10.0  # a real template renders a thousand messages in a tenth of a second
CLOCK = "_tuneport_clock"
# What a template may raise besides jinja2.TemplateError
RAISED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def run(template: str, variables: dict[str, Any]) -> str:
    """Render a template with these variables.

    Raises:
        jinja2.TemplateError: it is not valid Jinja, raised an error, or took longer than `MAX_SECONDS`.
    """
    from jinja2.exceptions import TemplateRuntimeError

    ends = time.monotonic() + MAX_SECONDS

    def look() -> None:
        if time.monotonic() > ends:
            raise TemplateRuntimeError(f"the chat template ran for more than {MAX_SECONDS:.0f} seconds")

    clock: dict[str, Callable[[], None]] = {CLOCK: look}
    return _compiled(template).render(**{**variables, **clock})


def _compiled(template: str) -> "Template":
    from jinja2 import TemplateError

    try:
        return _program(template)
    except (RecursionError, SyntaxError) as error:  # Jinja generates Python, whose nesting is limited
        raise TemplateError(f"it is nested too deeply ({error})") from error


@lru_cache(maxsize=128)
def _program(template: str) -> "Template":
    from jinja2 import nodes
    from transformers.utils import chat_template_utils

    environment = chat_template_utils._compile_jinja_template(template).environment  # pyright: ignore[reportPrivateUsage]
    tree = environment.parse(template)
    for block in tree.find_all((nodes.For, nodes.Macro)):
        block.body.insert(0, _look(block.lineno))
    code: Any = environment.compile(tree)
    return environment.template_class.from_code(environment, code, environment.make_globals(None))


def _look(line: int) -> "nodes.Node":
    from jinja2 import nodes

    return nodes.ExprStmt(nodes.Call(nodes.Name(CLOCK, "load"), [], [], None, None)).set_lineno(line)
