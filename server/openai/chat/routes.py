"""`POST /v1/chat/completions`, plain and streamed."""

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response

from server.http import statuses
from server.http.identity import Caller
from server.http.pieces import JSONText, Pieces
from server.http.streaming import size
from server.inference.answering import Asked, Generation
from server.inference.answers import Answer, gather
from server.inference.catalog import Model
from server.inference.engine import Engine
from server.openai import differences
from server.openai.chat import messages, structure, wire
from server.openai.chat.sampling import usage
from server.services import Parts

logger = logging.getLogger(__name__)
router = APIRouter()

ROLE = '{"role": "assistant", "content": "", "refusal": null}'  # every answer's first delta


@router.post("/v1/chat/completions")
async def create(body: wire.ChatRequest, request: Request, parts: Parts, caller: Caller) -> Response:
    """Answer a conversation."""
    differences.refuse("chat", await request.json())
    body.check()
    tools = body.callable_tools()
    turns = messages.with_instruction(
        [message.turn() for message in body.messages], structure.instruction(body.response_format)
    )

    def prompts(model: Model, engine: Engine) -> list[list[int]]:
        return [messages.prompt_ids(turns, model, engine, tools, body.chat_template_kwargs)]

    structure_param = body.guide_field() or "response_format"
    asked = Asked(
        body.model, body.user, body.sampling, prompts, size(request), "messages", structure_param, tools, turn=True
    )

    async def whole(generation: Generation) -> Response:
        tokens = [Pieces() for _ in range(generation.answers)]
        answers = await gather(generation, lambda delta: tokens[delta.index].extend(wire.logprobs(delta.logprobs)))
        scored = tokens if body.logprobs else [None] * len(tokens)
        choices = [_choice(index, *one) for index, one in enumerate(zip(answers, scored, strict=True))]
        return JSONText(wire.Writer(generation.model, body.tier).answer(choices, _usage(generation)))

    def events(generation: Generation) -> AsyncIterator[str]:
        return _events(generation, wire.Writer(generation.model, body.tier, body.wants_usage), body.wants_usage)

    return await parts.replies.respond(
        request, parts.beginning(asked, request, caller), whole=whole, events=events if body.stream else None
    )


def _choice(index: int, answer: Answer, logprobs: Pieces | None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
    if answer.calls:
        message["content"] = answer.text or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.calls
        ]
    return {
        "index": index,
        "message": message,
        "logprobs": None if logprobs is None else {"content": logprobs, "refusal": None},
        "finish_reason": answer.finish_reason,
    }


async def _events(generation: Generation, writer: wire.Writer, include_usage: bool) -> AsyncIterator[str]:
    """The stream's events; events that are ready together are sent together, since each send costs the same."""
    events = "".join(writer.chunk(index, ROLE) for index in range(generation.answers))
    try:
        async for delta in generation:
            if delta.text or delta.logprobs:
                scored = delta.logprobs and {"content": wire.logprobs(delta.logprobs), "refusal": None}
                tokens = json.dumps(scored or None)
                events += writer.chunk(delta.index, f'{{"content": {json.dumps(delta.text)}}}', tokens)
            if delta.tool_calls:
                events += writer.chunk(delta.index, json.dumps({"tool_calls": wire.call_deltas(delta.tool_calls)}))
            if delta.finish_reason is not None:
                events += writer.chunk(delta.index, "{}", finish_reason=delta.finish_reason)
            if events:
                yield events
                events = ""
    except Exception as error:
        generation.failed()
        logger.exception("a stream broke off")
        yield events + statuses.event(error)
        return
    if include_usage:
        events = writer.usage_chunk(_usage(generation))
    yield events + "data: [DONE]\n\n"


def _usage(generation: Generation) -> dict[str, Any]:
    return usage(generation.prompt_tokens, generation.completion_tokens, generation.cached_tokens)
