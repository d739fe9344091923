"""A `Sampling` in vLLM's terms, and vLLM's outputs as deltas."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from server.engine.tokens import TokenBytes
from server.engine.tools import ToolCalls
from server.generation import Delta, Sampling, TokenLogprob

if TYPE_CHECKING:
    from vllm.logprobs import Logprob
    from vllm.outputs import RequestOutput
    from vllm.sampling_params import SamplingParams

LOWEST_LOGPROB = -9999.0  # JSON has no -Inf; this is OpenAI's word for "very unlikely"


def parameters(sampling: Sampling, room: int, calls: ToolCalls | None) -> "SamplingParams":
    """vLLM's parameters.

    Args:
        room: tokens that fit into the context beside the prompt.

    Raises:
        ValueError: vLLM refuses a value; the message is its own.
    """
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    structure = StructuredOutputsParams(**sampling.structure) if sampling.structure else None
    values: dict[str, Any] = dict(sampling.more)
    if calls is not None:
        structure = calls.structure or structure
        values["skip_special_tokens"] = False  # some models' marks of a call are special tokens
    return SamplingParams(
        n=sampling.n,
        max_tokens=sampling.max_tokens or room,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        stop=list(sampling.stop),
        seed=sampling.seed,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        logit_bias=sampling.logit_bias or None,
        logprobs=sampling.top_logprobs,
        prompt_logprobs=sampling.prompt_logprobs,
        structured_outputs=structure,
        output_kind=RequestOutputKind.DELTA if sampling.streamed else RequestOutputKind.FINAL_ONLY,
        skip_clone=True,  # this request's own
        **values,
    )


def read(output: "RequestOutput", sampling: Sampling, utf8: TokenBytes, calls: ToolCalls | None) -> list[Delta]:
    """What one output of vLLM adds to the answers."""
    prompt: tuple[TokenLogprob, ...] = ()
    if sampling.prompt_logprobs is not None and output.prompt_logprobs:
        prompt = _logprobs(output.prompt_token_ids or (), output.prompt_logprobs, sampling.prompt_logprobs, utf8)
    deltas: list[Delta] = []
    for answer in output.outputs:
        delta = Delta(
            index=answer.index,
            text=answer.text,
            tokens=len(answer.token_ids),
            logprobs=()
            if sampling.top_logprobs is None
            else _logprobs(answer.token_ids, answer.logprobs or (), sampling.top_logprobs, utf8),
            prompt_logprobs=prompt,
            finish_reason=answer.finish_reason,
            cached_tokens=output.num_cached_tokens or 0,
        )
        deltas.append(delta if calls is None else calls.read(delta, list(answer.token_ids)))
    return deltas


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
