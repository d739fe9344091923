"""The bytes of single tokens, for log-probabilities; a character may be spread over several tokens."""

import re
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # SentencePiece's name of a single byte
SPACE = "▁"  # SentencePiece's, U+2581


class TokenBytes:
    """Bytes and text of single tokens, so that all bytes of an answer joined are its text in UTF-8.

    A byte-level vocabulary (GPT-2's alphabet: Llama 3, Qwen, SmolLM) writes bytes as letters; SentencePiece's (Llama 2,
    Gemma, Mistral) writes spaces as U+2581 and single bytes as `<0xE2>`. Decoding such a token alone would lose both.
    Tokens of any other tokenizer are decoded by it.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        vocabulary = tokenizer.get_vocab()
        self._tokenizer = tokenizer
        self._added = {number: str(token.content) for number, token in tokenizer.added_tokens_decoder.items()}
        self._special = frozenset(
            [*tokenizer.all_special_ids, *(n for n, token in tokenizer.added_tokens_decoder.items() if token.special)]
        )
        self._byte_level = "Ġthe" in vocabulary
        self._pieces = not self._byte_level and (f"{SPACE}the" in vocabulary or "<0x0A>" in vocabulary)
        self._alphabet = {letter: byte for byte, letter in bytes_to_unicode().items()}
        self._known: dict[int, tuple[str, bytes]] = {}

    def of(self, token_id: int) -> bytes:
        """The token's bytes."""
        return self._find(token_id)[1]

    def text(self, token_id: int) -> str:
        """The token as text; bytes that are no whole character are written as OpenAI does: `bytes:\\xe2\\x82`."""
        return self._find(token_id)[0]

    def is_special(self, token_id: int) -> bool:
        """Whether it is a mark of the model's format, which the text of an answer leaves out."""
        return token_id in self._special

    @cached_property
    def specials(self) -> dict[str, int]:
        """The marks of the model's format, by their text."""
        return {self.text(token_id): token_id for token_id in self._special}

    def _find(self, token_id: int) -> tuple[str, bytes]:
        if token_id not in self._known:
            utf8 = self._spell(token_id)
            try:
                text = utf8.decode()
            except UnicodeDecodeError:
                text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in utf8)
            self._known[token_id] = (text, utf8)
        return self._known[token_id]

    def _spell(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id].encode()
        if (self._byte_level or self._pieces) and token_id not in self._special:
            letters = str(self._tokenizer.convert_ids_to_tokens(token_id))
            if self._byte_level and all(letter in self._alphabet for letter in letters):
                return bytes(self._alphabet[letter] for letter in letters)
            if self._pieces:
                byte = FALLBACK.fullmatch(letters)
                return bytes([int(byte.group(1), 16)]) if byte else letters.replace(SPACE, " ").encode()
        return str(self._tokenizer.decode([token_id])).encode()
