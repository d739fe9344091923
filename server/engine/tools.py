"""Tool calls: vLLM's parsers read them out of answers, and its grammars hold them to their schemas.

Every answer is parsed delta by delta, so that streamed and whole answers hold the same calls.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from server.engine import grammars
from server.inference.engine import Delta, Sampling, ToolCallDelta, Tools
from server.state.ids import random_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm.parser.abstract_parser import Parser
    from vllm.sampling_params import StructuredOutputsParams


class ToolParsing:
    """How the base model writes its calls.

    Args:
        name: one of vLLM's tool parsers.

    Raises:
        ValueError: vLLM has no such parser, or the parser does not work with the tokenizer.
    """

    def __init__(self, name: str, tokenizer: "PreTrainedTokenizerBase") -> None:
        from vllm.parser import ParserManager

        try:
            parser = ParserManager.get_parser(name, enable_auto_tools=True, tokenizer=tokenizer)  # pyright: ignore[reportArgumentType]
        except TypeError as error:
            raise ValueError(f"tool_parser is {name!r}: {error}") from error
        assert parser is not None
        self._parser = parser
        self._tokenizer = tokenizer

    def begin(self, tools: Tools, prompt: list[int], sampling: Sampling) -> "ToolCalls":
        """A parser for one request's answers."""
        return ToolCalls(self._parser, self._tokenizer, tools, prompt, sampling)


class ToolCalls:
    """The calls in one request's answers; `structure` is the grammar that they follow, or None."""

    def __init__(
        self,
        kind: "type[Parser]",
        tokenizer: "PreTrainedTokenizerBase",
        tools: Tools,
        prompt: list[int],
        sampling: Sampling,
    ) -> None:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        named = tools.choice not in ("auto", "required")
        self._request: ChatCompletionRequest = ChatCompletionRequest.model_validate(
            {
                "messages": [{"role": "user", "content": ""}],
                "tools": [_pinned(tool) for tool in tools.functions],
                "tool_choice": {"type": "function", "function": {"name": tools.choice}} if named else tools.choice,
                "parallel_tool_calls": tools.parallel,
                "structured_outputs": sampling.structure if tools.choice == "auto" else None,
            }
        )
        self._parsers = [kind(tokenizer, self._request.tools) for _ in range(sampling.n)]  # pyright: ignore[reportArgumentType]
        adjusted: Any = self._parsers[0].adjust_request(self._request)
        self.structure: StructuredOutputsParams | None = adjusted.extract_structured_outputs()
        self._prompt = prompt
        self._ids: list[dict[int, str]] = [{} for _ in range(sampling.n)]
        self._reason = "stop" if named else "tool_calls"  # as OpenAI: "stop" if the function was asked for by name

    def read(self, delta: Delta, token_ids: list[int]) -> Delta:
        """The delta with calls moved from its text into `tool_calls`."""
        finished = delta.finish_reason is not None
        parser = self._parsers[delta.index]
        message = parser.parse_delta(delta.text, token_ids, self._request, self._prompt, finished=finished)
        known = self._ids[delta.index]
        calls: list[ToolCallDelta] = []
        for call in message.tool_calls if message else ():
            function = call.function
            arguments = (function.arguments if function else None) or ""
            if call.index not in known:
                known[call.index] = random_id("call_", 24)
                name = function.name if function else None
                calls.append(ToolCallDelta(call.index, arguments, known[call.index], name))
            elif arguments:
                calls.append(ToolCallDelta(call.index, arguments))
        reason = self._reason if known and delta.finish_reason == "stop" else delta.finish_reason
        text = (message.content if message else None) or ""
        return replace(delta, text=text, tool_calls=tuple(calls), finish_reason=reason)


def _pinned(tool: dict[str, Any]) -> dict[str, Any]:
    """The tool, made strict if a grammar can express its schema and the request leaves `strict` out."""
    from vllm.v1.structured_output.backend_xgrammar import has_xgrammar_unsupported_json_features

    function = tool["function"]
    schema = function.get("parameters") or {}
    expressible = grammars.places(schema) <= grammars.MAX_PLACES and not has_xgrammar_unsupported_json_features(schema)
    if function.get("strict") is None and schema and expressible:
        function = {**function, "strict": True}
    return {"type": "function", "function": function}
