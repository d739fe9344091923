"""How this server differs from OpenAI, field by field: one table for the code that refuses and for the docs.

Each field that OpenAI documents is either used (it is in the wire types) or listed here. A test walks the SDK's types
and fails for a field that is in neither; docs/differences.md is generated from this table.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from server.errors import Unsupported


@dataclass(frozen=True)
class Refused:
    """A field that is refused, since an answer that ignored it would not be what was asked for.

    Attributes:
        harmless: values besides null that ask for nothing, and so are accepted.
        parts: for an object, its fields and their harmless values; it is accepted if all its fields are.
    """

    why: str
    harmless: tuple[Any, ...] = ()
    parts: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def takes(self, value: Any) -> bool:
        """Whether the value asks for nothing, and so is accepted."""
        if isinstance(value, dict) and self.parts:
            return all(part is None or part in self.parts.get(name, ()) for name, part in value.items())
        return value is None or any(value == one and type(value) is type(one) for one in self.harmless)


@dataclass(frozen=True)
class Taken:
    """A field that is accepted without effect, since there is nothing here that it could change."""

    why: str


@dataclass(frozen=True)
class Narrower:
    """A field that is used, but not with every value of OpenAI's; the wire types refuse the others."""

    why: str


Table = Mapping[str, Refused | Taken | Narrower]

STREAMS: Table = {
    "stream_options.include_obfuscation": Taken("Streams are never padded against guessing by the size of packets."),
}
PLATFORM: Table = {
    "service_tier": Taken("One tier, `default`, but for `flex`, which waits behind live requests."),
    "prompt_cache_key": Taken("Prompts' beginnings are cached by content, for every caller and every model."),
    "prompt_cache_options": Taken("The cache needs no advice."),
    "prompt_cache_retention": Taken("What was used last stays longest."),
    "safety_identifier": Taken("Nobody watches your users here."),
    "moderation": Refused("There is no moderation model."),
}
CHAT: Table = {
    **STREAMS,
    **PLATFORM,
    "messages[].role": Narrower("All but `function`, which `tool` has replaced."),
    "messages[].content[]": Narrower("Text and refusals; the models understand no images, sound or files."),
    "messages[].content[].prompt_cache_breakpoint": Taken("The cache needs no advice."),
    "messages[].name": Taken("The model's chat template gets it; most show no names to the model."),
    "messages[].audio": Refused("The models understand text only."),
    "messages[].function_call": Refused("`tool_calls` has replaced it."),
    "messages[].tool_calls[]": Narrower("Calls of functions only."),
    "audio": Refused("The models speak text only."),
    "function_call": Refused("`tool_choice` has replaced it.", ("none", "auto")),
    "functions": Refused("`tools` has replaced it.", ([],)),
    "metadata": Taken("It belongs to `store`."),
    "modalities": Refused("The models speak text only.", (["text"],)),
    "prediction": Taken("It only makes answers faster; the answer is the same."),
    "reasoning_effort": Refused("The models do not reason before they answer.", ("none",)),
    "store": Refused("Chat completions are not kept; `/v1/responses` keeps its own.", (False,)),
    "tools[]": Narrower("Functions only."),
    "tool_choice": Narrower("`none`, `auto`, `required`, a function, or some of the functions."),
    "verbosity": Refused("The models know no such wish; say it in a message.", ("medium",)),
    "web_search_options": Refused("The server searches nothing."),
}
COMPLETIONS: Table = {
    **STREAMS,
    "best_of": Narrower("As many as `n` only."),
    "prompt": Narrower("1 to 2,048 prompts."),
    "suffix": Refused("The models write on, not in between.", ("",)),
}
RESPONSES: Table = {
    **STREAMS,
    **PLATFORM,
    "access_programs": Refused("There are none."),
    "background": Refused("A request is answered while it waits; `/v1/batches` answers later.", (False,)),
    "background_options": Refused("See `background`."),
    "context_management": Refused("Nothing is ever left out of a conversation.", ([],)),
    "conversation": Refused("`previous_response_id` continues a conversation."),
    "image": Taken("There are no images to compress."),
    "include": Narrower(
        "`message.output_text.logprobs`, and `reasoning.encrypted_content`, of which there is none. A kept "
        "response has no log-probabilities."
    ),
    "input": Narrower("Something: an empty list only beside `previous_response_id`."),
    "input[]": Narrower("Messages of text, function calls and their outputs."),
    "input[].async": Refused("Calls are answered in turn.", (False,)),
    "input[].caller": Refused("Functions are called by the model itself.", ({"type": "direct"},)),
    "input[].namespace": Refused("Functions have no namespaces."),
    "input[].phase": Taken("The models know no phases."),
    "max_tool_calls": Taken("It limits tools that run at OpenAI; functions run with you."),
    "prompt_cache_options.prewarm": Refused("A request is always answered.", (False,)),
    "prompt_cache_options.comparison_response_id": Refused("The cache has no diagnostics."),
    "prompt": Refused("There are no stored prompts; send `instructions`."),
    "reasoning": Refused(
        "The models do not reason before they answer.",
        parts={"effort": ("none",), "context": ("auto", "current_turn"), "mode": ("standard",)},
    ),
    "text.verbosity": Narrower("`medium` only; the models know no such wish."),
    "tool_choice": Narrower("`none`, `auto`, `required`, a function, or some of the functions."),
    "tools[]": Narrower("Functions only; nothing runs at the server."),
    "tools[].allowed_callers": Refused("Functions are called by the model itself.", (["direct"],)),
    "tools[].async": Refused("Calls are answered in turn.", (False,)),
    "tools[].defer_loading": Refused("The model is shown every function.", (False,)),
    "tools[].output_schema": Refused("The model is not told; say it in `description`."),
    "truncation": Refused("Nothing is ever left out of a conversation.", ("disabled",)),
}
EMBEDDINGS: Table = {
    "dimensions": Narrower("The embedding model's own number only."),
    "input": Narrower("Text; token ids are of another model's tokenizer."),
    "user": Taken("Embeddings are the same for every user."),
}
UPLOADS: Table = {
    "filename": Narrower("Training data are named `*.jsonl`."),
}
BATCHES: Table = {
    "endpoint": Narrower("The four that are served: chat completions, completions, responses, embeddings."),
}


def _graders(place: str) -> Table:
    entries = {
        "image_tag": Taken("Python graders have one set of packages: the server's own."),
        "input[].content": Narrower("Text only."),
        "evaluation_metric": Narrower("All but `cosine`, which needs an embedding model."),
    }
    return {f"{at}.{name}": entry for at in (place, f"{place}.graders") for name, entry in entries.items()}


JOBS: Table = {
    "seed": Narrower("0 to 2,147,483,647."),
    "method.reinforcement.hyperparameters.reasoning_effort": Taken("The models do not reason before they answer."),
    **_graders("method.reinforcement.grader"),
}
GRADERS: Table = _graders("grader")
VLLM: Table = {  # fields that `vllm serve` takes through `extra_body`
    "use_beam_search": Refused("Not offered.", (False,)),
    "length_penalty": Refused("It belongs to beam search.", (1, 1.0)),
    "chat_template": Refused("A template is code, and comes with the adapter (`manifest.json`)."),
    "continue_final_message": Refused("Not offered.", (False,)),
    "add_generation_prompt": Refused("An answer always begins a turn.", (True,)),
    "documents": Refused("Write them into a message.", ([],)),
    "prompt_embeds": Refused("Not offered."),
    "truncate_prompt_tokens": Refused("Nothing is ever cut."),
    "guided_whitespace_pattern": Refused("Not offered."),
    "guided_decoding_backend": Refused("The server chooses."),
    "logits_processors": Refused("They are code.", ([],)),
    "return_tokens_as_token_ids": Refused("Not offered.", (False,)),
    "return_token_ids": Refused("Not offered.", (False,)),
    "prompt_logprobs": Refused("`/v1/completions` scores a text with `echo` and `logprobs`."),
    "kv_transfer_params": Refused("Not offered."),
    "cache_salt": Refused("Prompts' beginnings are cached for every caller."),
    "priority": Refused("Live requests are equal, and go before batches.", (0,)),
    "request_id": Taken("Every answer has an id of its own: `x-request-id`."),
    "session_id": Taken("There are no sessions."),
    "include_reasoning": Taken("There is no reasoning to leave out."),
    "media_io_kwargs": Refused("The models understand text only.", ({},)),
    "mm_processor_kwargs": Refused("The models understand text only.", ({},)),
    "vllm_xargs": Refused("Not offered.", ({},)),
}


def _refusals(table: Table, but: str) -> Table:
    """A table's refusals of top-level fields, for other text endpoints, which do not have these fields either."""
    return {
        name: entry
        for name, entry in table.items()
        if isinstance(entry, Refused) and not {".", "["} & set(name) and name != but
    }


ELSEWHERE: dict[str, Table] = {  # fields of another endpoint, sent to this one
    "chat": {
        **_refusals(RESPONSES, but=""),
        "prompt": Refused("Its name is `messages` here."),
        "input": Refused("Its name is `messages` here."),
        "instructions": Refused("Send a message of the role `developer`."),
        "previous_response_id": Refused("A field of `/v1/responses`."),
        "include": Refused("A field of `/v1/responses`; ask for `logprobs`.", ([],)),
        "text": Refused("Its name is `response_format` here.", ({}, {"format": {"type": "text"}})),
        "echo": Refused("A field of `/v1/completions`.", (False,)),
        "best_of": Refused("A field of `/v1/completions`.", (1,)),
        "suffix": Refused("A field of `/v1/completions`.", ("",)),
        "max_output_tokens": Refused("Its name is `max_completion_tokens` here."),
        "add_special_tokens": Refused("The chat template has put them in.", (False,)),
    },
    "completions": {
        **_refusals(RESPONSES, but="prompt"),
        **_refusals(CHAT, but=""),
        "messages": Refused("Its name is `prompt` here."),
        "input": Refused("Its name is `prompt` here."),
        "instructions": Refused("Write them into `prompt`."),
        "previous_response_id": Refused("A field of `/v1/responses`."),
        "include": Refused("A field of `/v1/responses`; ask for `logprobs`.", ([],)),
        "text": Refused("Its name is `response_format` here.", ({}, {"format": {"type": "text"}})),
        "tools": Refused("A field of `/v1/chat/completions`.", ([],)),
        "tool_choice": Refused("A field of `/v1/chat/completions`.", ("none", "auto")),
        "parallel_tool_calls": Refused("A field of `/v1/chat/completions`.", (True, False)),
        "top_logprobs": Refused("Its name is `logprobs` here.", (0,)),
        "chat_template_kwargs": Refused("A prompt is rendered by no template.", ({},)),
        "max_completion_tokens": Refused("Its name is `max_tokens` here."),
        "max_output_tokens": Refused("Its name is `max_tokens` here."),
        "add_special_tokens": Refused("Send token ids to choose them.", (True,)),
    },
    "responses": {
        **_refusals(CHAT, but="store"),
        "reasoning_effort": Refused("Its place is `reasoning.effort` here.", ("none",)),
        "verbosity": Refused("Its place is `text.verbosity` here.", ("medium",)),
        "chat_template_kwargs": Refused("A field of `/v1/chat/completions`.", ({},)),
        "echo": Refused("A field of `/v1/completions`.", (False,)),
        "best_of": Refused("A field of `/v1/completions`.", (1,)),
        "suffix": Refused("A field of `/v1/completions`.", ("",)),
        "logprobs": Refused("Ask with `include` or `top_logprobs`.", (False,)),
        "max_tokens": Refused("Its name is `max_output_tokens` here."),
        "max_completion_tokens": Refused("Its name is `max_output_tokens` here."),
        "response_format": Refused("Its place is `text.format` here."),
        "messages": Refused("Its name is `input` here."),
        "n": Refused("One answer a request.", (1,)),
    },
}
ENDPOINTS: dict[str, tuple[str, Table]] = {
    "chat": ("POST /v1/chat/completions", CHAT),
    "completions": ("POST /v1/completions", COMPLETIONS),
    "responses": ("POST /v1/responses", RESPONSES),
    "embeddings": ("POST /v1/embeddings", EMBEDDINGS),
    "uploads": ("POST /v1/uploads", UPLOADS),
    "batches": ("POST /v1/batches", BATCHES),
    "jobs": ("POST /v1/fine_tuning/jobs", JOBS),
    "graders_run": ("POST /v1/fine_tuning/alpha/graders/run", GRADERS),
    "graders_validate": ("POST /v1/fine_tuning/alpha/graders/validate", GRADERS),
}


def refuse(endpoint: str, body: Mapping[str, Any]) -> None:
    """Refuse the first field that the table refuses; fields that nobody documents are ignored.

    Args:
        endpoint: a key of `ENDPOINTS`.
        body: the request as it was sent.

    Raises:
        Unsupported: the table refuses it.
    """
    for name, path, entry in _refused(endpoint):
        if name in body:
            for place, value in values(body, path):
                if not entry.takes(value):
                    raise Unsupported(place, entry.why)


@cache
def _refused(endpoint: str) -> list[tuple[str, list[str], Refused]]:
    """An endpoint's refusals: the top-level field, the whole path, and the table's entry."""
    vllm = {} if endpoint == "embeddings" else VLLM
    table = {**vllm, **ENDPOINTS[endpoint][1], **ELSEWHERE.get(endpoint, {})}
    paths = [(path.split("."), entry) for path, entry in table.items() if isinstance(entry, Refused)]
    return [(path[0].removesuffix("[]"), path, entry) for path, entry in paths]


def values(at: Any, path: list[str]) -> Iterator[tuple[str, Any]]:
    """The values at a path such as `tools[].strict`, each with its own place: `tools.0.strict`."""
    name, *rest = path
    key = name.removesuffix("[]")
    if not isinstance(at, dict) or key not in at:
        return
    value = at[key]
    found = [(key, value)]
    if name != key:
        found = [(f"{key}.{number}", one) for number, one in enumerate(value)] if isinstance(value, list) else []
    for place, one in found:
        if not rest:
            yield place, one
        else:
            yield from ((f"{place}.{under}", deeper) for under, deeper in values(one, rest))
