"""Chat templates within a time: they are programs, come with adapters, and may loop for ever.

transformers compiles them for its sandbox; every loop and macro here looks at the clock first.
"""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template, nodes

MAX_SECONDS = 10.0  # a real template renders a thousand messages in a tenth of a second
CLOCK = "_tuneport_clock"
# By templates, beside jinja2.TemplateError: they are programs
RAISED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def run(template: str, variables: dict[str, Any]) -> str:
    """What a template makes of the variables.

    Raises:
        jinja2.TemplateError: the template is none, raised, or took longer than `MAX_SECONDS`.
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
    except (RecursionError, SyntaxError) as error:  # Python's own limits, for Jinja writes Python
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
