"""All tokens' bytes joined are the text, whatever the tokenizer spells them with."""

from typing import Any

import pytest

from server.engine.tokens import TokenBytes

TEXTS = [
    "The capital of France is Paris.",
    "😀👍🏽 naïve \u200fשלום\n\tx\u2028y",
    "  two  spaces ",
    "é̀ 한국어 \0 \x1b[0m",
]


@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_tokens_join_to_the_text(text: str, tokenizer: Any) -> None:
    utf8 = TokenBytes(tokenizer)
    assert b"".join(map(utf8.of, tokenizer(text).input_ids)) == text.encode()


def test_a_token_that_is_half_an_emoji_has_its_own_bytes(tokenizer: Any) -> None:
    utf8 = TokenBytes(tokenizer)
    assert [list(utf8.of(token)) for token in (10813, 242, 218)] == [[240, 159], [152], [128]]
    assert utf8.text(10813) == "bytes:\\xf0\\x9f"


def test_special_tokens_are_told_apart_and_have_their_text(tokenizer: Any) -> None:
    utf8 = TokenBytes(tokenizer)
    assert [utf8.is_special(token) for token in (0, 2, 6, 17, 504)] == [True, True, True, False, False]
    assert (utf8.text(2), utf8.of(2)) == ("<|im_end|>", b"<|im_end|>")
    assert utf8.specials["<|im_start|>"] == 1


@pytest.fixture(scope="module")
def pieces() -> Any:
    """A tokenizer as Llama 2, Mistral and Gemma have them: spaces are U+2581, unknown characters come as bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    letters = [chr(letter) for letter in range(33, 127)]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    names = ["<unk>", "<s>", "</s>", *bytes_, "▁", *letters, "▁t", "▁th", "▁the"]
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e")]
    marks = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    vocabulary = {name: number for number, name in enumerate(names)}
    model = models.BPE(vocabulary, merges, byte_fallback=True, **{"unk_token": "<unk>"})
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Replace(" ", "▁")  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_tokens([AddedToken("é!", normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, **marks)


@pytest.mark.parametrize("text", [*TEXTS, " the é! <0x41"])
def test_pieces_and_fallback_bytes_join_to_the_text(text: str, pieces: Any) -> None:
    utf8 = TokenBytes(pieces)
    ids = pieces(text, add_special_tokens=False).input_ids
    assert b"".join(map(utf8.of, ids)) == text.encode()
    assert all(utf8.text(token) for token in ids)


def test_a_piece_keeps_its_space_and_an_emoji_its_bytes(pieces: Any) -> None:
    utf8 = TokenBytes(pieces)
    ids = pieces(" the😀é!", add_special_tokens=False).input_ids
    assert [utf8.of(token) for token in ids] == [b" the", b"\xf0", b"\x9f", b"\x98", b"\x80", "é!".encode()]
    assert utf8.is_special(2)
