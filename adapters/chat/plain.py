"""The chat template of a base that has none: with it a completion model is trained to be an assistant.

It needs no new tokens, for their embeddings would have to be trained too: roles are headings, and an answer ends with
the token that ended the texts which the base learnt from.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}### Assistant:\n{{ message.content }}{{ eos_token }}\n\n"
    "{% else %}{% if message.role == 'user' %}### User:\n{% endif %}{{ message.content }}\n\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)


def begun(tokenizer: "PreTrainedTokenizerBase", source: str) -> str:
    """The template, begun by the token with which the base's texts began, where they did and it does not say so."""
    first = str(tokenizer.bos_token)
    adds = tokenizer.bos_token is not None and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    return "{{ bos_token }}" + source if adds and not any(one in source for one in ("bos_token", first)) else source
