"""`/v1/responses`: create, retrieve, delete, list the input's items."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from server.errors import InvalidRequest
from server.http.identity import Caller
from server.http.pieces import JSONText, Pieces
from server.http.streaming import size
from server.inference.answering import Asked, Generation
from server.inference.answers import gather
from server.inference.catalog import Model
from server.inference.engine import Engine
from server.openai import differences
from server.openai.chat import messages, structure
from server.openai.chat import wire as chat_wire
from server.openai.lists import After, Known, Limit, page
from server.openai.responses import items as conversation
from server.openai.responses import wire
from server.openai.responses.events import Events
from server.services import Parts

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/responses")

Include = Annotated[list[str] | None, Query(description="Taken: an item is always shown whole.")]
IncludeToo = Annotated[list[str] | None, Query(alias="include[]", description="`include`, as the SDKs write it.")]


@router.post("")
async def create(body: wire.ResponseRequest, request: Request, parts: Parts, caller: Caller) -> Response:
    """Answer, and store the answer unless `store` is false."""
    differences.refuse("responses", await request.json())
    body.check()
    own = body.items()
    before = await asyncio.to_thread(parts.responses.conversation, body.previous_response_id)
    turns = conversation.turns([*before, *own])
    if body.instructions is not None:
        turns = [{"role": "system", "content": body.instructions}, *turns]
    turns = messages.with_instruction(turns, structure.instruction(body.format()))
    tools = body.callable_tools()

    def prompts(model: Model, engine: Engine) -> list[list[int]]:
        return [messages.prompt_ids(turns, model, engine, tools)]

    async def keep(response: dict[str, Any]) -> None:
        if response["store"]:
            output = conversation.without_logprobs(response["output"])
            await asyncio.to_thread(parts.responses.add, {**response, "output": output}, own)

    async def whole(generation: Generation) -> Response:
        tokens = Pieces()
        answer = (await gather(generation, lambda delta: tokens.extend(chat_wire.logprobs(delta.logprobs))))[0]
        output = conversation.output(answer, tokens)
        response = wire.end(body.begin(generation.model), output, answer.finish_reason, _usage(generation))
        await keep(response)
        return JSONText(response)

    async def events(generation: Generation) -> AsyncIterator[str]:
        response = body.begin(generation.model)
        writer = Events(response)
        reason: str | None = None
        try:
            for event in writer.begin():
                yield event
            async for delta in generation:
                reason = delta.finish_reason
                for event in writer.add(delta):
                    yield event
            for event in writer.close(reason):
                yield event
            response = wire.end(response, writer.output, reason, _usage(generation))
            await keep(response)
            yield writer.end(response)
        except Exception as error:
            generation.failed()
            logger.exception("a stream broke off")
            for event in writer.fail(error):
                yield event

    characters = size(request) + sum(len(turn["content"]) for turn in turns)
    structure_param = body.guide_field() or "text.format"
    asked = Asked(body.model, body.user, body.sampling, prompts, characters, "input", structure_param, tools, turn=True)
    return await parts.replies.respond(
        request, parts.beginning(asked, request, caller), whole=whole, events=events if body.stream else None
    )


@router.get("/{response_id}")
def retrieve(response_id: str, parts: Parts, stream: Annotated[bool | None, Query()] = None) -> dict[str, Any]:
    """A stored response."""
    if stream:
        raise InvalidRequest("only responses in the background can be streamed again; leave 'stream' out", "stream")
    return parts.responses.get(response_id)


@router.delete("/{response_id}")
def delete(response_id: str, parts: Parts) -> dict[str, Any]:
    """Delete a stored response."""
    parts.responses.delete(response_id)
    return {"id": response_id, "object": "response", "deleted": True}


@router.post("/{response_id}/cancel")
def cancel(response_id: str, parts: Parts) -> dict[str, Any]:
    """Refused: only background responses can be cancelled, and this server has none."""
    parts.responses.get(response_id)
    raise InvalidRequest("Cannot cancel a synchronous response.")


@router.get("/{response_id}/input_items", dependencies=[Known])
def input_items(
    response_id: str,
    parts: Parts,
    after: After = None,
    limit: Limit = 20,
    order: Literal["asc", "desc"] = "desc",
    include: Include = None,
    include_too: IncludeToo = None,
) -> JSONText:
    """The input items of a stored response."""
    items = parts.responses.input_items(response_id)
    return page(items if order == "asc" else items[::-1], after, limit)


def _usage(generation: Generation) -> dict[str, Any]:
    return wire.usage(generation.prompt_tokens, generation.completion_tokens, generation.cached_tokens)
