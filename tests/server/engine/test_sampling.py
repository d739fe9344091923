"""OpenAI's ranges in vLLM's own classes, and vLLM's outputs as deltas."""

from typing import Any

import pytest

from server.engine.sampling import copies, greedy, parameters, read, refused
from server.engine.tokens import TokenBytes
from server.errors import EngineUnavailable, InvalidRequest
from server.inference.engine import STRUCTURE, Delta, Sampling, ToolCallDelta

EMOJI = "😀 ok"


def made(sampling: Sampling, **more: Any) -> Any:
    return parameters(sampling, 100, None, {"<|im_end|>": 2}, **more)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0, "n": 128},
        {"temperature": 1e-8, "n": 3},
        {"temperature": 1e-5, "n": 3},
        {"temperature": 2.0, "top_p": 1.0},
        {"top_p": 0.0, "n": 2},
        {"top_p": 1e-12},
        {"presence_penalty": -2.0, "frequency_penalty": 2.0},
        {"logit_bias": {0: -100.0, 49151: 100.0}},
        {"top_logprobs": 0},
        {"top_logprobs": 20},
        {"max_tokens": 1},
        {"seed": -1},
        {"seed": -(2**63)},
        {"seed": 2**63 - 1, "n": 128},
        {"stop": ("x" * 100_000, "\0", "\u2028", "<|im_end|>")},
        {"n": 128},
    ],
    ids=str,
)
def test_every_value_of_openais_is_one_of_vllms(change: dict[str, Any]) -> None:
    import msgspec

    taken = made(Sampling(**change))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(taken), type=type(taken)) == taken


def test_what_ends_a_turn_ends_an_answer_unless_the_request_wants_none() -> None:
    assert made(Sampling(ends=(5, 2), more={"stop_token_ids": [9]})).stop_token_ids == [9, 5, 2]
    assert not made(Sampling(ends=(5, 2), more={"ignore_eos": True})).stop_token_ids


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"temperature": 1e-8}, True),
        ({"temperature": 0.0}, True),
        ({"top_p": 0.0}, True),
        ({"temperature": 1e-5}, False),
    ],
)
def test_hardly_any_temperature_and_no_top_p_are_greedy(change: dict[str, Any], expected: bool) -> None:
    asked = Sampling(n=2, **change)
    assert greedy(asked) is expected
    taken = made(asked)
    assert (taken.n, taken.temperature == 0) == ((1, True) if expected else (2, False))


def test_a_seed_is_never_vllms_word_for_none_and_stays_itself() -> None:
    assert made(Sampling(seed=-1)).seed == 2**62 - 1
    assert made(Sampling(seed=42)).seed == 42
    assert made(Sampling(seed=2**63 - 1, n=128)).seed + 128 < 2**63


def test_a_stop_string_that_is_a_special_token_stops_by_its_id() -> None:
    assert made(Sampling(stop=("<|im_end|>", "x"))).stop_token_ids == [2]
    assert made(Sampling(stop=("<|im_end|>",), more={"stop_token_ids": [5]})).stop_token_ids == [5, 2]


def test_copies_of_a_greedy_answer_have_calls_of_their_own() -> None:
    delta = Delta(0, "x", 1, tool_calls=(ToolCallDelta(0, "{}", "call_a", "f"), ToolCallDelta(1, "}")))
    first, second, third = copies(delta, 3)
    assert first is delta
    assert [second.index, third.index] == [1, 2]
    ids = {one.tool_calls[0].id for one in (first, second, third)}
    assert len(ids) == 3
    assert second.tool_calls[1] == delta.tool_calls[1]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"min_tokens": 9, "max_tokens": 5}, "min_tokens"),
        ({"min_p": 2.0}, "min_p"),
        ({"top_k": -5}, "top_k"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"stop_token_ids": ["a"]}, "stop_token_ids"),
        ({"bad_words": [""]}, "bad_words"),
        ({"presence_penalty": 3.0}, "presence_penalty"),
        ({"frequency_penalty": 3.0}, "frequency_penalty"),
        ({"temperature": 3.0}, "temperature"),
        ({"top_p": 2.0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 100_000}, "n"),
        ({"stop": ("",)}, "stop"),
        ({"top_logprobs": -5}, "logprobs"),
        ({"structure": {}}, None),
        ({"structure": {"json": "{}", "regex": "a"}}, STRUCTURE),
        ({"structure": {"bogus": 1}}, STRUCTURE),
        ({"structure": {"json": 5}}, None),
    ],
    ids=str,
)
def test_each_of_vllms_own_checks_names_our_field(more: dict[str, Any], param: str | None) -> None:
    from vllm.exceptions import VLLMClientError

    known = {name: value for name, value in more.items() if name in Sampling.__dataclass_fields__}
    rest = {name: value for name, value in more.items() if name not in known}
    try:
        made(Sampling(**known, more=rest))
    except (TypeError, ValueError, VLLMClientError) as error:
        told = refused(error, None)
        assert told.param == param, str(told)
        assert "vllm" not in str(told).lower()
        assert str(told)
    else:
        assert more == {"structure": {}}


@pytest.mark.parametrize(
    ("message", "parameter", "param"),
    [
        (
            "token_id(s) [999999] in logit_bias contain out-of-vocab token ids. Vocabulary size: 9",
            "logit_bias",
            "logit_bias",
        ),
        ("Failed to transform json schema into a grammar: xgrammar says no", None, STRUCTURE),
        ("The provided JSON schema contains features not supported by xgrammar.", None, STRUCTURE),
        ("Grammar error: guidance", None, STRUCTURE),
        ("structured_outputs.regex must not contain a NUL character", None, STRUCTURE),
        ("The JSON schema is nested too deeply", None, STRUCTURE),
        ("The min_p and logit_bias sampling parameters are not supported", None, "min_p"),
    ],
)
def test_no_refusal_names_what_is_behind(message: str, parameter: str | None, param: str) -> None:
    from vllm.exceptions import VLLMValidationError

    told = refused(VLLMValidationError(message, parameter=parameter), None)
    assert told.param == param
    assert not any(word in str(told).lower() for word in ("vllm", "xgrammar", "guidance"))


def output(tokenizer: Any, ids: list[int], text: str, reason: str | None, stop_reason: int | str | None = None) -> Any:
    """What vLLM hands over for an answer of these tokens."""
    from vllm.logprobs import Logprob
    from vllm.outputs import CompletionOutput, RequestOutput

    logprobs: Any = [{token: Logprob(-0.5), 7: Logprob(float("-inf"))} for token in ids]
    answer = CompletionOutput(0, text, ids, -0.5, logprobs, finish_reason=reason, stop_reason=stop_reason)
    return RequestOutput("r", None, [1], None, [answer], finished=reason is not None)


def joined(delta: Delta) -> bytes:
    return b"".join(token.utf8 for token in delta.logprobs)


@pytest.mark.parametrize(
    ("tail", "reason", "stop_reason", "more"),
    [
        ([2], "stop", None, {}),
        ([2], "stop", None, {"skip_special_tokens": False}),
        ([28], "stop", 28, {"stop_token_ids": [28]}),
        ([], "length", None, {}),
        ([6], "length", None, {}),
    ],
)
def test_the_bytes_of_an_answer_join_to_its_text(
    tail: list[int], reason: str, stop_reason: int | None, more: dict[str, Any], tokenizer: Any
) -> None:
    ids = [*tokenizer(EMOJI).input_ids, *tail]
    sampling = Sampling(top_logprobs=2, more=more)
    (delta,) = read(output(tokenizer, ids, EMOJI, reason, stop_reason), sampling, TokenBytes(tokenizer), None)
    assert joined(delta) == EMOJI.encode()
    assert len(delta.logprobs) == len(ids)
    assert delta.logprobs[0].top[1].logprob == -9999.0, "JSON has no -Infinity"


@pytest.mark.parametrize(
    ("structure", "kind", "param"),
    [({"choice": ["yes"]}, InvalidRequest, STRUCTURE), (None, EngineUnavailable, None)],
)
def test_an_answer_that_vllm_gives_up_is_an_error(structure: Any, kind: type, param: Any, tokenizer: Any) -> None:
    """vLLM ends it with the reason "error", which OpenAI does not have and no client knows."""
    with pytest.raises(kind) as raised:
        read(output(tokenizer, [0], "", "error"), Sampling(structure=structure), TokenBytes(tokenizer), None)
    assert getattr(raised.value, "param", None) == param


def test_special_tokens_that_are_shown_have_their_bytes(tokenizer: Any) -> None:
    ids = tokenizer(f"<filename>{EMOJI}").input_ids
    shown = Sampling(top_logprobs=0, more={"skip_special_tokens": False})
    (delta,) = read(output(tokenizer, ids, f"<filename>{EMOJI}", "length"), shown, TokenBytes(tokenizer), None)
    assert joined(delta) == f"<filename>{EMOJI}".encode()
    (delta,) = read(output(tokenizer, ids, EMOJI, "length"), Sampling(top_logprobs=0), TokenBytes(tokenizer), None)
    assert joined(delta) == EMOJI.encode()
    assert [one.token for one in delta.logprobs[:1]] == ["<filename>"]
