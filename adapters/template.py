"""Chat to text to token ids, once for training and serving: the template trained with is the template served."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TemplateError(ValueError):
    """The chat template refused the conversation; the message is the template's own."""


def render(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, Any]],
    *,
    template: str | None = None,
    generation_prompt: bool,
) -> str:
    """Text of a conversation, special tokens included.

    Args:
        tokenizer: the base model's tokenizer.
        messages: `{"role", "content"}` each, content a string. OpenAI's `developer` role is rendered as `system`,
            for most open models' templates know no other.
        template: Jinja source from an adapter's manifest; None: the tokenizer's own.
        generation_prompt: end with the opening of an assistant turn, as a request for an answer does.

    Raises:
        TemplateError: the template raised, or there is none.
    """
    from jinja2 import TemplateError as JinjaError

    turns = [
        {**message, "role": "system" if message["role"] == "developer" else message["role"]} for message in messages
    ]
    try:
        return str(
            tokenizer.apply_chat_template(
                turns, chat_template=template, add_generation_prompt=generation_prompt, tokenize=False
            )
        )
    except (JinjaError, TypeError, ValueError) as error:
        raise TemplateError(f"the model's chat template refused the messages: {error}") from error


def encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of rendered text; the template has put the special tokens in already."""
    return tokenizer(text, add_special_tokens=False).input_ids
