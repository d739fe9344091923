"""Compares the names that trainers write for a base model, which depend on its source and number format.

The shapes of the weights are checked anyway; the name check only refuses what is surely another model. Folder and owner
do not count, but the rest of the name does, since a base model has the shapes of its Instruct version.
"""

import re

_LONGEST = 256  # characters; a longer name is compared as it is
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CACHED = re.compile(r"models--(?:.+--)?(.+)")
# Suffixes for number formats of the same weights: bitsandbytes, GPTQ, HQQ, EXL2, GGUF, MLX, FP8 and plain ones; `-hf`
# means Llama 2 in transformers' format. Left out: AWQ and SmoothQuant's W8A8, which divide the norms before a layer and
# multiply the layer by the same factors, so an adapter trained there expects other inputs (github.com/mit-han-lab/
# llm-awq, `scale_ln_fcs`); and models trained further after quantisation (QAT, BitNet).
_FORMAT = re.compile(
    r"[-_.](?:(?:unsloth[-_.])?bnb[-_.][48]bit|mlx|[2-8]-?bits?|int[48]|nf4|fp8(?:[-_.]dynamic)?|gptq|auto-?round|hqq"
    r"|exl2|gguf|q[2-8](?:_[01k])?(?:_[sml])?|w4a16|quantized|g(?:32|64|128)|bf16|fp16|f16|fp32|hf)$"
)


def named(name: str) -> str:
    """The model's own name in an id, a path of any system, or a folder of a Hugging Face or ModelScope cache."""
    parts = [part for part in re.split(r"[/\\]", name.strip()) if part not in ("", ".")]
    if len(parts) > 2 and parts[-2] == "snapshots":
        del parts[-2:]
    while len(parts) > 1 and _COMMIT.fullmatch(parts[-1]):
        parts.pop()
    last = parts[-1] if parts else ""
    if cached := _CACHED.fullmatch(last):
        last = cached[1]
    return last.partition("@")[0].replace("___", ".")  # `@revision`; ModelScope writes ___ for .


def same_weights(name: str, other: str) -> bool:
    """Whether two names mean the same weights, or quantised twins that take the same adapters."""
    return bool(named(name)) and _plain(name) == _plain(other)


def _plain(name: str) -> str:
    last = named(name).lower().removeprefix("meta-")  # the hub dropped "Meta-" from Llama 3.1's name; copies keep it
    while len(last) <= _LONGEST and (shorter := _FORMAT.sub("", last)) and shorter != last:
        last = shorter
    return last
