"""The chat template for a base without one, so that a completion model can be trained to be an assistant.

It needs no new tokens, since their embeddings would have to be trained too: roles are headings, and an answer ends with
the token that ended the texts in the base's own training.
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
    """The template, with the BOS token in front if the tokenizer adds one to texts and the template does not."""
    first = str(tokenizer.bos_token)
    adds = tokenizer.bos_token is not None and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    return "{{ bos_token }}" + source if adds and not any(one in source for one in ("bos_token", first)) else source
