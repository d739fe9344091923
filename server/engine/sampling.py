"""Translates a `Sampling` into vLLM's parameters, and vLLM's outputs into deltas.

Every value that OpenAI allows is accepted; where vLLM's range is narrower, it is replaced by an equivalent.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from server.engine import grammars
from server.engine.tokens import TokenBytes
from server.engine.tools import ToolCalls
from server.errors import EngineUnavailable, InvalidRequest, ServerError
from server.inference.engine import STRUCTURE, TOKENS_AT_A_TIME, Delta, Sampling, TokenLogprob
from server.state.ids import random_id

if TYPE_CHECKING:
    from vllm.logprobs import Logprob
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.sampling_params import SamplingParams

LOWEST_LOGPROB = -9999.0  # OpenAI's value for "very unlikely", since JSON has no -Inf
GREEDY_BELOW = 1e-5  # vLLM's limit; temperatures from there up to 0.01 count as 0.01
SEEDS = 2**62  # vLLM takes -1 for "none", and adds the answer's number to a seed, which must stay within 64 bits
NAMES = (  # parameter names to look for in vLLM's messages; a name that begins another one comes after it
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "temperature", "top_p", "top_k", "min_p"),
    *("min_tokens", "max_tokens", "stop_token_ids", "allowed_token_ids", "bad_words", "logit_bias", "prompt_logprobs"),
    *("logprobs", "seed", "stop", "n"),
)
STRUCTURED = re.compile(r"grammar|schema|regex|structur|choice", re.IGNORECASE)
ENGINES_WORDS = re.compile(r"\b(vllm\w*|xgrammar|llguidance|guidance|outlines|lm-format-enforcer)\b", re.IGNORECASE)
LONGEST_MESSAGE = 500
GIVEN_UP = "error"  # a finish reason of vLLM's that OpenAI does not have


def greedy(sampling: Sampling) -> bool:
    """Whether the most probable token is always taken, so that all `n` answers are equal."""
    return sampling.temperature < GREEDY_BELOW or sampling.top_p == 0


def copies(delta: Delta, n: int) -> list[Delta]:
    """A greedy answer's delta, copied for each of `n` answers; tool calls get a different id in each."""
    return [
        delta,
        *(
            replace(
                delta,
                index=index,
                tool_calls=tuple(
                    replace(call, id=random_id("call_", 24)) if call.id else call for call in delta.tool_calls
                ),
            )
            for index in range(1, n)
        ),
    ]


def parameters(sampling: Sampling, room: int, calls: ToolCalls | None, specials: Mapping[str, int]) -> "SamplingParams":
    """vLLM's parameters.

    Args:
        room: tokens that fit into the context beside the prompt.
        specials: text -> id of tokens that an answer's text leaves out; as a stop string they only work by id.

    Raises:
        ValueError, VLLMClientError: vLLM refuses a value; see `refused`.
    """
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    structure = StructuredOutputsParams(**sampling.structure) if sampling.structure else None
    values: dict[str, Any] = dict(sampling.more)
    if calls is not None:
        structure = calls.structure or structure
        values["skip_special_tokens"] = False  # in some models the marks of a call are special tokens
    if structure is not None:
        grammars.check(structure)
    marks = [specials[stop] for stop in sampling.stop if stop in specials]
    if not values.get("ignore_eos"):
        marks += sampling.ends
    if marks:
        values["stop_token_ids"] = [*values.get("stop_token_ids", ()), *marks]
    return SamplingParams(
        n=1 if greedy(sampling) else sampling.n,
        max_tokens=sampling.max_tokens or room,
        temperature=0.0 if greedy(sampling) else sampling.temperature,
        top_p=sampling.top_p or 1.0,
        stop=list(sampling.stop),
        seed=None if sampling.seed is None else sampling.seed % SEEDS,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        logit_bias=sampling.logit_bias or None,
        logprobs=sampling.top_logprobs,
        prompt_logprobs=sampling.prompt_logprobs,
        structured_outputs=structure,
        output_kind=RequestOutputKind.DELTA if sampling.streamed else RequestOutputKind.FINAL_ONLY,
        skip_clone=True,  # used by this request only
        **values,
    )


def refused(error: BaseException, calls: ToolCalls | None) -> InvalidRequest:
    """vLLM's refusal as our own error: it names the request's field, and no library behind the server.

    Args:
        calls: if the request has tools, an error in the grammar is blamed on them.
    """
    message = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(next(iter(error.args), ""))
    message = ENGINES_WORDS.sub("the server", message)[:LONGEST_MESSAGE]
    named = getattr(error, "parameter", None)
    named = named or next((name for name in NAMES if re.match(rf"\W*(\w+ )?{name}\b", message)), None)
    named = named or next((name for name in NAMES[:-1] if re.search(rf"\b{name}\b", message)), None)
    if named is None and STRUCTURED.search(message):
        if calls is not None and calls.structure is not None:
            told = "The calls cannot be held to the tools' parameters; simplify their schemas"
            return InvalidRequest(f"{told}: {message}", "tools")
        return InvalidRequest(f"The answer cannot be held to that form: {message}", STRUCTURE)
    return InvalidRequest(message or "The engine cannot follow this request.", named)


def given_up(sampling: Sampling, calls: ToolCalls | None) -> ServerError:
    """The error for an answer that vLLM gave up: other fields of the request forbid every token that could follow."""
    told = "The answer cannot be held to that form: no token that the request allows goes on with it"
    if calls is not None and calls.structure is not None:
        return InvalidRequest(told, "tools")
    if sampling.structure:
        return InvalidRequest(told, STRUCTURE)
    return EngineUnavailable("the engine gave the answer up; try again")


def read(
    output: "RequestOutput",
    sampling: Sampling,
    utf8: TokenBytes,
    calls: ToolCalls | None,
    prompt: tuple[TokenLogprob, ...] = (),
) -> list[Delta]:
    """What one output of vLLM adds to the answers.

    Args:
        prompt: the log-probabilities of the prompt's tokens; see `of_prompt`.

    Raises:
        ServerError: vLLM gave an answer up; see `given_up`.
    """
    deltas: list[Delta] = []
    for answer in output.outputs:
        if answer.finish_reason == GIVEN_UP:
            raise given_up(sampling, calls)
        delta = Delta(
            index=answer.index,
            text=answer.text,
            tokens=len(answer.token_ids),
            logprobs=() if sampling.top_logprobs is None else _of_answer(answer, sampling, utf8, calls),
            prompt_logprobs=prompt,
            finish_reason=answer.finish_reason,
            cached_tokens=output.num_cached_tokens or 0,
        )
        deltas.append(delta if calls is None else calls.read(delta, list(answer.token_ids)))
    return deltas


async def of_prompt(output: "RequestOutput", sampling: Sampling, utf8: TokenBytes) -> tuple[TokenLogprob, ...]:
    """Log-probabilities of the prompt's tokens, if asked for; yields to the event loop between pieces."""
    if sampling.prompt_logprobs is None or not output.prompt_logprobs:
        return ()
    ids, tokens = output.prompt_token_ids or (), list[TokenLogprob]()
    for start in range(0, len(ids), TOKENS_AT_A_TIME):
        part = slice(start, start + TOKENS_AT_A_TIME)
        tokens += _logprobs(ids[part], output.prompt_logprobs[part], sampling.prompt_logprobs, utf8)
        await asyncio.sleep(0)
    return tuple(tokens)


def _of_answer(
    answer: "CompletionOutput", sampling: Sampling, utf8: TokenBytes, calls: ToolCalls | None
) -> tuple[TokenLogprob, ...]:
    """Log-probabilities of an answer's tokens; tokens that the text leaves out have no bytes."""
    assert sampling.top_logprobs is not None
    tokens = _logprobs(answer.token_ids, answer.logprobs or (), sampling.top_logprobs, utf8)
    shown = calls is not None or sampling.more.get("skip_special_tokens") is False
    ended = answer.finish_reason == "stop" and not isinstance(answer.stop_reason, str)  # by a token
    dropped = len(tokens) - 1 if ended and not sampling.more.get("include_stop_str_in_output") else None
    return tuple(
        replace(token, utf8=b"") if place == dropped or (not shown and utf8.is_special(token_id)) else token
        for place, (token_id, token) in enumerate(zip(answer.token_ids, tokens, strict=True))
    )


def _logprobs(
    token_ids: Sequence[int], positions: "Sequence[dict[int, Logprob] | None]", top: int, utf8: TokenBytes
) -> tuple[TokenLogprob, ...]:
    tokens: list[TokenLogprob] = []
    for token_id, position in zip(token_ids, positions, strict=True):
        if position is None:  # a prompt's first token
            tokens.append(TokenLogprob(utf8.text(token_id), None, utf8.of(token_id)))
            continue
        ranked = sorted(position.items(), key=lambda entry: -entry[1].logprob)[:top]
        alternatives = tuple(_entry(other, entry, utf8) for other, entry in ranked)
        chosen = _entry(token_id, position[token_id], utf8)
        tokens.append(TokenLogprob(chosen.token, chosen.logprob, chosen.utf8, alternatives))
    return tuple(tokens)


def _entry(token_id: int, entry: "Logprob", utf8: TokenBytes) -> TokenLogprob:
    return TokenLogprob(utf8.text(token_id), max(entry.logprob, LOWEST_LOGPROB), utf8.of(token_id))
