"""Identifiers in OpenAI's form: a prefix and 24 letters and digits, from the system's random source."""

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits
_LETTERS = bytes(ord(_ALPHABET[byte % len(_ALPHABET)]) for byte in range(256))  # a letter for each byte


def random_id(prefix: str, length: int = 24) -> str:
    """A new random id, for example `file-7hQk...`."""
    return prefix + secrets.token_bytes(length).translate(_LETTERS).decode()
