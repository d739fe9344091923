"""Tools in OpenAI's chat form: which the model may call, and whether it must."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from server.errors import InvalidRequest
from server.inference.engine import Tools
from server.openai.chat.structure import AnySchema
from training.wire import FUNCTION_NAME, WithoutNulls

MAX_TOOLS = 128  # OpenAI's limit


class Function(WithoutNulls):
    """A function the model may call; `parameters` is a JSON schema."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(pattern=FUNCTION_NAME)]
    description: str | None = None
    parameters: AnySchema | None = None
    strict: bool | None = None


class Tool(WithoutNulls):
    """A tool; only functions are known."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["function"]
    function: Function


class FunctionName(WithoutNulls):
    """A function by its name."""

    name: str


class NamedTool(WithoutNulls):
    """A tool by its name: the one to be called, or one of those allowed."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(WithoutNulls):
    """Which of the tools may be called for this answer."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1)]


class AllowedToolsChoice(WithoutNulls):
    """A choice among some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


Choice = Literal["none", "auto", "required"] | Annotated[NamedTool | AllowedToolsChoice, Field(discriminator="type")]


def choose(tools: list[Tool], choice: Choice | None, parallel: bool) -> Tools | None:
    """The tools that the model may call; None: none.

    Raises:
        InvalidRequest: the choice names an unknown tool, or there are no tools.
    """
    if not tools:
        if choice in (None, "none", "auto"):
            return None
        raise InvalidRequest("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
    if choice == "none":
        return None  # the tools are not shown to the model either, so it cannot call them
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise InvalidRequest("two tools have the same name", "tools")
    mode = choice if isinstance(choice, str) else "auto"
    wanted = names
    if isinstance(choice, NamedTool):
        wanted = [choice.function.name]
        mode = wanted[0]
    elif isinstance(choice, AllowedToolsChoice):
        wanted = [tool.function.name for tool in choice.allowed_tools.tools]
        mode = choice.allowed_tools.mode
    allowed = set(wanted)
    for name in allowed.difference(names):
        raise InvalidRequest(f"Tool choice '{name}' not found in 'tools' parameter.", "tool_choice")
    functions = [tool.model_dump(exclude_none=True) for tool in tools if tool.function.name in allowed]
    return Tools(tuple(functions), mode, parallel)
