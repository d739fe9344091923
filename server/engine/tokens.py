"""A token's own bytes: what log-probabilities report, also where a character is spread over several tokens."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenBytes:
    """Bytes and text of single tokens.

    A byte-level vocabulary (GPT-2's alphabet, as Llama 3, Qwen and SmolLM have it) spells bytes as letters. Any other
    tokenizer's tokens are taken as it decodes them.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        self._byte_level = "Ġthe" in tokenizer.get_vocab()
        self._alphabet = {letter: byte for byte, letter in bytes_to_unicode().items()}
        self._known: dict[int, tuple[str, bytes]] = {}

    def of(self, token_id: int) -> bytes:
        """The token's bytes."""
        return self._find(token_id)[1]

    def text(self, token_id: int) -> str:
        """The token as text; bytes that are no whole character are shown as OpenAI does: `bytes:\\xe2\\x82`."""
        return self._find(token_id)[0]

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
        if self._byte_level and token_id not in self._special:
            letters = str(self._tokenizer.convert_ids_to_tokens(token_id))
            if all(letter in self._alphabet for letter in letters):
                return bytes(self._alphabet[letter] for letter in letters)
        return str(self._tokenizer.decode([token_id])).encode()
