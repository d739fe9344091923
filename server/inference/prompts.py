"""Refuses texts that cannot fit into the context before they are tokenized: a megabyte takes 1.5 seconds."""

from functools import lru_cache
from typing import TYPE_CHECKING

from server.errors import ContextLengthExceeded
from server.inference.engine import Engine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_length(characters: int, engine: Engine) -> None:
    """Refuse a text that would not fit the context even if every token were the vocabulary's longest.

    Raises:
        ContextLengthExceeded: the text is too long.
    """
    if characters > engine.context and characters > engine.context * _longest_token(engine.tokenizer):
        raise ContextLengthExceeded(
            f"This model's maximum context length is {engine.context} tokens. However, your messages have {characters} "
            "characters, more than so many tokens can hold. Please reduce the length of the messages."
        )


@lru_cache(maxsize=2)
def _longest_token(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Characters of the vocabulary's longest entry; in a byte-level vocabulary its bytes, an upper bound."""
    return max(map(len, tokenizer.get_vocab()))
