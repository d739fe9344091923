"""Fields that all text endpoints share: OpenAI's, and vLLM's own."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from adapters.manifest import SamplingDefaults
from server.errors import InvalidRequest
from server.inference.engine import LATER, Sampling
from server.openai.chat import structure
from server.openai.chat.structure import AnySchema
from server.openai.wire import Metadata
from training.wire import Outside, without_nulls

GUIDED = {"guided_json": "json", "guided_regex": "regex", "guided_choice": "choice", "guided_grammar": "grammar"}
MAX_BIASES = 1024  # vLLM's limit on a GPU, where more would end the engine
MAX_STOP_IDS = 96  # vLLM's limit on a GPU is 128, with the end tokens that we add
MAX_INTEGER = 2**31 - 1
FLEX = "flex"

BadWord = Annotated[str, Field(min_length=1, max_length=200)]  # vLLM tokenizes each twice
TokenId = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Tokens = Annotated[int, Field(ge=1, le=MAX_INTEGER)]


def _few(biases: Any) -> Any:
    if isinstance(biases, dict) and len(biases) > MAX_BIASES:
        raise ValueError(f"{len(biases)} tokens; at most {MAX_BIASES} can have a bias")
    return without_nulls(biases)


def _not_empty(stop: str | list[str]) -> str | list[str]:
    if "" in ([stop] if isinstance(stop, str) else stop):
        raise ValueError("an empty string stops nothing")
    return stop


class StreamOptions(Outside):
    """Options of a stream."""

    include_usage: bool | None = None


class StructuredOutputs(Outside):
    """What the answer must look like, in vLLM's form."""

    model_config = ConfigDict(extra="forbid")

    json_: AnySchema | str | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: list[str] | None = Field(default=None, min_length=1)
    grammar: str | None = None
    json_object: bool | None = None


class VllmFields(Outside):
    """vLLM's fields beyond OpenAI's, which clients send through an SDK's `extra_body`."""

    top_k: Annotated[int, Field(ge=-1, le=MAX_INTEGER)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.001, le=1000)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=MAX_INTEGER)] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_IDS)] | None = None
    bad_words: Annotated[list[BadWord], Field(max_length=MAX_BIASES)] | None = None
    allowed_token_ids: Annotated[list[TokenId], Field(min_length=1, max_length=MAX_BIASES)] | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None


class TextRequest(VllmFields):
    """A request for text; null means absent."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    n: int | None = Field(default=None, ge=1, le=128)
    stop: Annotated[str | Annotated[list[str], Field(max_length=4)], AfterValidator(_not_empty)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: Annotated[dict[int, Annotated[float, Field(ge=-100, le=100)]], BeforeValidator(_few)] | None = None
    user: str | None = None
    service_tier: str | None = None
    metadata: Metadata | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: AnySchema | str | None = None
    guided_regex: str | None = None
    guided_choice: Annotated[list[str], Field(min_length=1)] | None = None
    guided_grammar: str | None = None

    @property
    def tier(self) -> str:
        """The service tier shown in answers. `flex` has the low priority of batches; all others count as "default"."""
        return FLEX if self.service_tier == FLEX else "default"

    @property
    def wants_usage(self) -> bool:
        """Whether the stream shall end with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def check_stream(self) -> None:
        """Raise InvalidRequest if there are stream options but no stream, as OpenAI does."""
        if self.wants_usage and not self.stream:
            raise InvalidRequest(
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options"
            )

    def guide(self) -> dict[str, Any] | None:
        """The structure that vLLM's own fields ask for; see `Sampling.structure`.

        Raises:
            InvalidRequest: they ask for several structures.
        """
        guides = {new: getattr(self, old) for old, new in GUIDED.items() if getattr(self, old) is not None}
        if self.structured_outputs is not None:
            guides |= self.structured_outputs.model_dump(exclude_none=True, by_alias=True)
            if guides.get("json_object") is False:
                del guides["json_object"]
        if len(guides) > 1:
            raise InvalidRequest(f"only one of {', '.join(sorted(guides))} can be asked for", "structured_outputs")
        return guides or None

    def structure_for(self, wanted: structure.Format | None, field: str) -> dict[str, Any] | None:
        """The structure that the request asks for, in vLLM's fields or in OpenAI's.

        Args:
            wanted, field: OpenAI's field, and its name in this endpoint.

        Raises:
            InvalidRequest: both ask for one.
        """
        guide, formed = self.guide(), structure.structure(wanted)
        if guide and formed:
            raise InvalidRequest(f"'{field}' and '{self.guide_field()}' cannot both be asked for", field)
        return guide or formed

    def guide_field(self) -> str | None:
        """The name of vLLM's field that asks for a structure."""
        return next(
            (name for name in (*GUIDED, "structured_outputs") if getattr(self, name) is not None),
            None,
        )

    def sampling_fields(self, defaults: SamplingDefaults) -> Sampling:
        """Sampling parameters: the request's values, else the adapter's, else OpenAI's."""
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
            priority=LATER if self.tier == FLEX else 0,
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
