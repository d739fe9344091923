"""Fields that every text endpoint takes: OpenAI's, vLLM's own beside them, and those that are refused by name."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters.manifest import SamplingDefaults
from server.generation import InvalidRequest, Sampling, Unsupported

# Fields known to OpenAI or vLLM and not to us, with the values that ask for nothing. All others that nobody knows are
# ignored, as OpenAI does.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "store": (False,),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "moderation": (),
    "use_beam_search": (False,),
    "length_penalty": (1, 1.0),
    "chat_template": (),
    "continue_final_message": (False,),
    "add_generation_prompt": (True,),
    "documents": ([],),
    "prompt_embeds": (),
    "truncate_prompt_tokens": (),
    "guided_whitespace_pattern": (),
    "guided_decoding_backend": (),
    "logits_processors": ([],),
    "return_tokens_as_token_ids": (False,),
    "return_token_ids": (False,),
    "prompt_logprobs": (),
    "kv_transfer_params": (),
}
GUIDED = {"guided_json": "json", "guided_regex": "regex", "guided_choice": "choice", "guided_grammar": "grammar"}


class StreamOptions(BaseModel):
    """Options of a stream; obfuscation is not made, whatever is asked."""

    include_usage: bool = False


class VllmFields(BaseModel):
    """What vLLM takes beyond OpenAI, through an SDK's `extra_body`."""

    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None
    bad_words: list[Annotated[str, Field(min_length=1)]] | None = None
    allowed_token_ids: list[int] | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None


class TextRequest(VllmFields):
    """A request for text; null means absent."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    n: int | None = Field(default=None, ge=1, le=128)
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] | None = None
    user: str | None = None
    structured_outputs: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check(self) -> "TextRequest":
        if any(not stop for stop in ([self.stop] if isinstance(self.stop, str) else self.stop or ())):
            raise ValueError("'stop' holds an empty string")
        return self

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def refuse_unsupported(self, more: Mapping[str, tuple[Any, ...]]) -> None:
        """Raise Unsupported for the first field that asks for what we cannot do.

        Args:
            more: fields that this endpoint alone refuses, with their harmless values.
        """
        for field, value in (self.model_extra or {}).items():
            harmless = more.get(field, UNSUPPORTED.get(field))
            if harmless is not None and value is not None and value not in harmless:
                raise Unsupported(field)

    def guide(self) -> dict[str, Any] | None:
        """What vLLM's own fields say the answer must look like; see `Sampling.structure`.

        Raises:
            InvalidRequest: they say more than one thing.
        """
        extra = self.model_extra or {}
        guides = {new: extra[old] for old, new in GUIDED.items() if extra.get(old) is not None}
        structure = {**(self.structured_outputs or {}), **guides}
        if len(structure) > 1:
            raise InvalidRequest(f"only one of {', '.join(sorted(structure))} can be asked for", "structured_outputs")
        return structure or None

    def sampling_fields(self, defaults: SamplingDefaults) -> Sampling:
        """How to sample: the request's own values, else the adapter's, else OpenAI's."""
        return Sampling(
            temperature=_first(self.temperature, defaults.temperature, 1.0),
            top_p=_first(self.top_p, defaults.top_p, 1.0),
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            seed=self.seed,
            n=self.n or 1,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=self.logit_bias or {},
            more={name: value for name in VllmFields.model_fields if (value := getattr(self, name)) is not None},
            streamed=bool(self.stream),
        )


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> dict[str, Any]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
