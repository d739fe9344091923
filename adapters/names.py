"""Names of fine-tuned models, as OpenAI writes them: `ft:{base}:{org}:{suffix}:{id}`, checkpoints `…:ckpt-step-{n}`.

A registered name may be any `ft:` string an old codebase already holds. Names never become paths: the store is
addressed by content, so the pattern only keeps out what breaks logs, metrics labels and URLs.
"""

import re

from adapters.errors import InvalidName

MAX_LENGTH = 256
MAX_STEP = 10**9
MAX_SUFFIX_LENGTH = 64  # OpenAI's limit on `suffix`

_NAME = re.compile(r"ft:[A-Za-z0-9][A-Za-z0-9._:/@+-]*")


def check(name: str) -> str:
    """Return `name` if it can be registered.

    Raises:
        InvalidName: it is no `ft:` name, is longer than 256 characters or has other than letters, digits and `._:/@+-`.
    """
    if len(name) > MAX_LENGTH:
        raise InvalidName(f"name has {len(name)} characters; at most {MAX_LENGTH} are allowed")
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"name {name!r} is not a fine-tuned model's name; expected 'ft:' followed by letters, digits and ._:/@+- "
            "(for example ft:my-base:my-org:my-suffix:a1B2c3D4)"
        )
    return name


def is_name(name: str) -> bool:
    """Whether something can be registered under it; what cannot need not be looked for in a database."""
    return len(name) <= MAX_LENGTH and _NAME.fullmatch(name) is not None


def mint(base: str, organization: str, suffix: str | None, identifier: str) -> str:
    """Name of a job's result, for example `ft:SmolLM2-135M-Instruct:personal:orders:9xQbT2aa`.

    Characters a name cannot hold become `-`, as OpenAI does; without a suffix its field stays empty (`ft:b:o::id`).

    Raises:
        InvalidName: with its checkpoints' steps it is too long.
    """
    fields = (base, organization, (suffix or "")[:MAX_SUFFIX_LENGTH].strip().lower(), identifier)
    name = check("ft:" + ":".join(re.sub(r"[^A-Za-z0-9._/+-]+", "-", field) for field in fields))
    checkpoint(name, MAX_STEP)  # or the job would fail once it is trained
    return name


def checkpoint(name: str, step: int) -> str:
    """Name of the checkpoint of `name` saved after optimizer step `step`."""
    return check(f"{name}:ckpt-step-{step}")
