"""Identifiers in OpenAI's form: a prefix and 24 letters and digits, from the system's random source."""

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits


def random_id(prefix: str, length: int = 24) -> str:
    """For example `file-7hQk...`."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(length))
