"""`POST /v1/completions`, the older endpoint: it continues a text; evaluation harnesses use it to score."""

import codecs
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from adapters.manifest import SamplingDefaults
from server.errors import InvalidRequest
from server.http import statuses
from server.http.identity import Caller
from server.http.pieces import JSONText, Pieces
from server.http.streaming import size
from server.inference.answering import Asked, Generation
from server.inference.answers import Answer, gather, parted
from server.inference.catalog import Model
from server.inference.engine import MAX_LOGPROBS, Delta, Engine, Sampling
from server.inference.prompts import check_length
from server.openai import differences
from server.openai.chat import structure
from server.openai.chat.sampling import MAX_INTEGER, TextRequest, usage
from server.services import Parts
from server.state.ids import random_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
router = APIRouter()

MAX_PROMPTS = 2048  # OpenAI's limit
CHARACTERS_A_PROMPT = 100  # that take as long to tokenise as a prompt by itself does
UTF8 = codecs.getincrementaldecoder("utf-8")
DEFAULT_MAX_TOKENS = 16  # OpenAI's default
BEGINNING = "<|endoftext|>"  # OpenAI's default prompt; here it means the model's own first token


class CompletionRequest(TextRequest):
    """A request for a text's continuation."""

    prompt: str | list[str] | list[int] | list[list[int]] | None = None
    max_tokens: int | None = Field(default=None, ge=0, le=MAX_INTEGER)
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    best_of: int | None = Field(default=None, ge=0, le=20)
    response_format: structure.Format | None = None

    def prompts(self) -> Sequence[str | list[int]]:
        """The prompts; without one, the model begins a text.

        Raises:
            InvalidRequest: the list of prompts is empty or too long, or a prompt has no tokens.
        """
        if self.prompt is None:
            return [BEGINNING]
        prompts: list[Any] = [self.prompt]
        if isinstance(self.prompt, list) and not (self.prompt and isinstance(self.prompt[0], int)):
            prompts = list(self.prompt)
        if not prompts or len(prompts) > MAX_PROMPTS:
            raise InvalidRequest(f"{len(prompts)} prompts; expected 1 to {MAX_PROMPTS}", "prompt")
        if len(prompts) * (self.n or 1) > MAX_PROMPTS:
            raise InvalidRequest(
                f"{len(prompts)} prompts with {self.n} answers each; at most {MAX_PROMPTS} answers are given", "n"
            )
        if [] in prompts:
            raise InvalidRequest('a prompt has no tokens; send "" to have a text begun', "prompt")
        return prompts

    def sampling(self, defaults: SamplingDefaults) -> Sampling:
        """Sampling parameters: the request's values, else the adapter's, else OpenAI's."""
        wanted = self.max_tokens if self.max_tokens is not None else defaults.max_completion_tokens
        return replace(
            self.sampling_fields(defaults),
            max_tokens=DEFAULT_MAX_TOKENS if wanted is None else max(wanted, 1),  # for 0, one is generated and dropped
            top_logprobs=self.logprobs,
            prompt_logprobs=self.logprobs if self.echo else None,
            structure=self.structure_for(self.response_format, "response_format"),
        )


@router.post("/v1/completions")
async def create(body: CompletionRequest, request: Request, parts: Parts, caller: Caller) -> Response:
    """Continue a text."""
    differences.refuse("completions", await request.json())
    body.check_stream()
    if body.best_of and body.best_of != (body.n or 1):
        raise InvalidRequest("'best_of' is not supported by this server; leave it out, or ask for 'n'", "best_of")
    texts = body.prompts()

    def prompts(_model: Model, engine: Engine) -> list[list[int]]:
        tokenizer = engine.tokenizer
        first: Any = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        if body.prompt is None:
            return [[first]]
        return [_ids(prompt, engine) or [first] for prompt in texts]

    structure_param = body.guide_field() or "response_format"
    characters = size(request) + CHARACTERS_A_PROMPT * len(texts)
    asked = Asked(body.model, body.user, body.sampling, prompts, characters, "prompt", structure_param)

    async def whole(generation: Generation) -> Response:
        writer = _Writer(generation, body, texts, parts.engine.tokenizer)
        answers = await gather(generation, writer.add)
        choices = [writer.whole(index, answer) for index, answer in enumerate(answers)]
        return JSONText({**writer.identity, "choices": choices, "usage": writer.usage()})

    def events(generation: Generation) -> AsyncIterator[str]:
        return _events(generation, _Writer(generation, body, texts, parts.engine.tokenizer))

    return await parts.replies.respond(
        request, parts.beginning(asked, request, caller), whole=whole, events=events if body.stream else None
    )


def _ids(prompt: str | list[int], engine: Engine) -> list[int]:
    tokenizer = engine.tokenizer
    if isinstance(prompt, str):
        check_length(len(prompt), engine)
        return tokenizer(prompt).input_ids
    for token in prompt:
        if not 0 <= token < len(tokenizer):
            raise InvalidRequest(f"{token} is no token of this model; expected 0 to {len(tokenizer) - 1}", "prompt")
    return prompt


class _Writer:
    """Writes one request's choices."""

    def __init__(
        self,
        generation: Generation,
        body: CompletionRequest,
        prompts: Sequence[str | list[int]],
        tokenizer: "PreTrainedTokenizerBase",
    ) -> None:
        self._generation = generation
        self._n = body.n or 1
        self._dropped = body.max_tokens == 0
        self._wants_logprobs = body.logprobs is not None
        self.wants_usage = body.wants_usage
        texts = [prompt if isinstance(prompt, str) else str(tokenizer.decode(prompt)) for prompt in prompts]
        self._echoes = texts if body.echo else [""] * len(texts)
        self._offsets = [0 if body.echo else len(text) for text in texts for _ in range(self._n)]
        self._written = list(self._offsets)
        self._characters = [UTF8("replace") for _ in self._offsets]
        self._whole: list[dict[str, Any]] = [
            {"tokens": Pieces(), "token_logprobs": Pieces(), "top_logprobs": Pieces(), "text_offset": []}
            for _ in self._offsets
        ]
        beginning = tokenizer("").input_ids[:1]  # what some tokenizers add before a text
        self._added = [
            prompt == "" or (isinstance(prompt, str) and ids[:1] == beginning)
            for prompt, ids in zip(prompts, generation.prompts, strict=True)
        ]
        self.identity = {
            "id": random_id("cmpl-", 29),
            "object": "text_completion",
            "created": int(time.time()),
            "model": generation.model,
            "system_fingerprint": None,
        }

    def choice(self, delta: Delta, *, first: bool) -> dict[str, Any]:
        """A delta as OpenAI's choice; `first`: it is the answer's first."""
        index = delta.index
        text = (self._echoes[index // self._n] if first else "") + ("" if self._dropped else delta.text)
        self._written[index] += len(text)
        columns = self._columns(delta, first=first)
        columns["text_offset"] = [min(offset, self._written[index]) for offset in columns["text_offset"]]
        return {
            "index": index,
            "text": text,
            "logprobs": columns if self._wants_logprobs else None,
            "finish_reason": delta.finish_reason and ("length" if self._dropped else delta.finish_reason),
        }

    def add(self, delta: Delta) -> None:
        """Collect a delta's log-probabilities, for an answer that is sent whole."""
        whole = self._whole[delta.index]
        for name, values in self._columns(delta, first=not whole["text_offset"]).items():
            whole[name].extend(values)

    def whole(self, index: int, answer: Answer) -> dict[str, Any]:
        """A whole answer, with the log-probabilities collected by `add`."""
        choice = self.choice(Delta(index, answer.text, 0, finish_reason=answer.finish_reason), first=True)
        if not self._wants_logprobs:
            return choice
        offsets = [min(offset, self._written[index]) for offset in self._whole[index]["text_offset"]]
        return {**choice, "logprobs": {**self._whole[index], "text_offset": offsets}}

    def usage(self) -> dict[str, Any]:
        """The usage so far."""
        made = 0 if self._dropped else self._generation.completion_tokens
        return usage(self._generation.prompt_tokens, made, self._generation.cached_tokens)

    def _columns(self, delta: Delta, *, first: bool) -> dict[str, list[Any]]:
        """Log-probabilities in this endpoint's form.

        The offset of a token that is a part of a character is the character's. A token that the text leaves out, such
        as half a character at an answer's end, gets an offset after the end.
        """
        tokens = [*delta.prompt_logprobs, *(() if self._dropped else delta.logprobs)]
        if first and delta.prompt_logprobs and self._added[delta.index // self._n]:
            tokens[0] = replace(tokens[0], utf8=b"")
        offsets: list[int] = []
        for token in tokens:
            offsets.append(self._offsets[delta.index])
            self._offsets[delta.index] += len(self._characters[delta.index].decode(token.utf8))
        return {
            "tokens": [token.token for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                None
                if token.logprob is None
                else {token.token: token.logprob, **{other.token: other.logprob for other in token.top}}
                for token in tokens
            ],
            "text_offset": offsets,
        }


async def _events(generation: Generation, writer: _Writer) -> AsyncIterator[str]:
    usage = {"usage": None} if writer.wants_usage else {}
    begun: set[int] = set()

    def chunk(delta: Delta) -> str:
        choice = writer.choice(delta, first=delta.index not in begun)
        begun.add(delta.index)
        return f"data: {json.dumps({**writer.identity, 'choices': [choice], **usage})}\n\n"

    try:
        async for delta in generation:
            if delta.text or delta.logprobs or delta.finish_reason or delta.index not in begun:
                for part in parted(delta):
                    yield chunk(part)
    except Exception as error:
        generation.failed()
        logger.exception("a stream broke off")
        yield statuses.event(error)
        return
    if writer.wants_usage:
        yield f"data: {json.dumps({**writer.identity, 'choices': [], 'usage': writer.usage()})}\n\n"
    yield "data: [DONE]\n\n"
