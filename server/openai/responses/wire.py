"""Wire types of `POST /v1/responses`: the checked request, and the response's object."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from adapters.manifest import SamplingDefaults
from server.errors import InvalidRequest, Unsupported
from server.inference.engine import MAX_LOGPROBS, Sampling, Tools
from server.openai.chat import structure
from server.openai.chat.sampling import TextRequest, Tokens
from server.openai.chat.tools import (
    MAX_TOOLS,
    AllowedTools,
    AllowedToolsChoice,
    Function,
    FunctionName,
    NamedTool,
    Tool,
    choose,
)
from server.openai.responses.items import Item, Message
from server.state.ids import random_id
from training.data.jsonl import quoted
from training.wire import WithoutNulls

MAX_ITEMS = 10_000
LOGPROBS = "message.output_text.logprobs"


class ResponseTool(Function):
    """A function that the model may call; unlike in chat, its fields are not nested."""

    type: Literal["function"]

    def tool(self) -> Tool:
        """As chat has it."""
        return Tool(type="function", function=Function.model_validate(self.model_dump(exclude={"type"})))


class ToolName(WithoutNulls):
    """A function by its name: the one to be called, or one of those allowed."""

    type: Literal["function"]
    name: str

    def named(self) -> NamedTool:
        """As chat has it."""
        return NamedTool(type="function", function=FunctionName(name=self.name))


class AllowedNames(WithoutNulls):
    """A choice among some of the tools."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolName], Field(min_length=1)]

    def allowed(self) -> AllowedToolsChoice:
        """As chat has it."""
        tools = AllowedTools(mode=self.mode, tools=[tool.named() for tool in self.tools])
        return AllowedToolsChoice(type="allowed_tools", allowed_tools=tools)


class JsonSchemaFormat(structure.Schema):
    """JSON that follows a schema; unlike in chat, its fields are not nested."""

    type: Literal["json_schema"]
    schema_: structure.AnySchema | None = Field(alias="schema")


class TextFormat(WithoutNulls):
    """What the answer must look like."""

    model_config = ConfigDict(extra="ignore")

    format: Annotated[structure.Text | structure.JsonObject | JsonSchemaFormat | None, Field(discriminator="type")] = (
        None
    )
    verbosity: Literal["medium"] | None = None


class ResponseRequest(TextRequest):
    """A request for the next items of a conversation."""

    input: str | Annotated[list[Item], Field(max_length=MAX_ITEMS)] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    max_output_tokens: Tokens | None = None
    max_tool_calls: int | None = None
    tools: list[ResponseTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: (
        Literal["none", "auto", "required"] | Annotated[ToolName | AllowedNames, Field(discriminator="type")] | None
    ) = None
    parallel_tool_calls: bool | None = None
    text: TextFormat | None = None
    include: list[str] | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    store: bool | None = None

    def items(self) -> list[dict[str, Any]]:
        """The input as the API lists it."""
        given = [Message(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        return [item.wire() for item in given or ()]

    def check(self) -> None:
        """Refuse what this server cannot do.

        Raises:
            InvalidRequest: there is nothing to answer, or an item has no content.
            Unsupported: names the first such field.
        """
        self.check_stream()
        if not self.input and self.input != "" and self.previous_response_id is None:
            raise InvalidRequest("Send 'input', or 'previous_response_id' to go on from a response.", "input")
        for number, item in enumerate(self.input if isinstance(self.input, list) else ()):
            if isinstance(item, Message) and item.content is None and item.role != "assistant":
                place = f"input.{number}.content"  # an assistant's answer may be empty
                raise InvalidRequest(f"Missing required parameter: '{place}'.", place)
        for name in self.include or ():
            if name not in (LOGPROBS, "reasoning.encrypted_content"):  # there is no reasoning to include
                raise Unsupported("include", f"{quoted(name)} is nothing that there is here.")

    def format(self) -> structure.Format | None:
        """What the answer must look like, as chat has it."""
        wanted = self.text.format if self.text else None
        if isinstance(wanted, JsonSchemaFormat):
            schema = structure.Schema.model_validate(wanted.model_dump(exclude={"type"}))
            return structure.JsonSchema(type="json_schema", json_schema=schema)
        return wanted

    def callable_tools(self) -> Tools | None:
        """The tools that the model may call; see `choose`."""
        choice = self.tool_choice
        if isinstance(choice, ToolName):
            choice = choice.named()
        elif isinstance(choice, AllowedNames):
            choice = choice.allowed()
        return choose([tool.tool() for tool in self.tools or ()], choice, self.parallel_tool_calls is not False)

    def sampling(self, defaults: SamplingDefaults) -> Sampling:
        """Sampling parameters: the request's values, else the adapter's, else OpenAI's."""
        wants_logprobs = LOGPROBS in (self.include or ()) or bool(self.top_logprobs)
        return replace(
            self.sampling_fields(defaults),
            max_tokens=self.max_output_tokens or defaults.max_completion_tokens,
            top_logprobs=(self.top_logprobs or 0) if wants_logprobs else None,
            structure=self.structure_for(self.format(), "text.format"),
        )

    def begin(self, model: str) -> dict[str, Any]:
        """The response's object before the answer."""
        wanted = self.text.format if self.text else None
        return {
            "id": random_id("resp_", 48),
            "object": "response",
            "created_at": int(time.time()),
            "completed_at": None,
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": self.max_tool_calls,
            "metadata": self.metadata or {},
            "model": model,
            "output": [],
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "previous_response_id": self.previous_response_id,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": self.tier,
            "store": self.store is not False,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "text": {
                "format": wanted.model_dump(by_alias=True) if wanted else {"type": "text"},
                "verbosity": "medium",
            },
            "tool_choice": self.tool_choice.model_dump()
            if isinstance(self.tool_choice, BaseModel)
            else self.tool_choice or "auto",
            "tools": [tool.model_dump() for tool in self.tools or ()],
            "top_logprobs": self.top_logprobs or 0,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": self.user,
        }


def end(
    response: dict[str, Any], output: Sequence[dict[str, Any]], finish_reason: str | None, usage: dict[str, Any]
) -> dict[str, Any]:
    """The response's object with the answer."""
    cut = finish_reason == "length"
    return {
        **response,
        "status": "incomplete" if cut else "completed",
        "completed_at": None if cut else int(time.time()),
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": list(output),
        "usage": usage,
    }


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> dict[str, Any]:
    """The Responses API's usage object."""
    return {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {"cached_tokens": cached_tokens, "cache_write_tokens": 0},
        "output_tokens": completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt_tokens + completion_tokens,
    }
