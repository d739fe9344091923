"""Names of fine-tuned models in OpenAI's form: `ft:{base}:{org}:{suffix}:{id}`, checkpoints `…:ckpt-step-{n}`.

Any other `ft:` string can be registered too, so that a client's code can keep its old names. Names never become paths,
so the pattern only refuses characters that break logs, metrics labels and URLs.
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
        InvalidName: no `ft:` name, over 256 characters, or characters besides letters, digits and `._:/@+-`.
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
    """Whether the name can be registered; a name that cannot needs no look into the database."""
    return len(name) <= MAX_LENGTH and _NAME.fullmatch(name) is not None


def mint(base: str, organization: str, suffix: str | None, identifier: str) -> str:
    """Name of a job's result, for example `ft:SmolLM2-135M-Instruct:personal:orders:9xQbT2aa`.

    Characters that a name cannot hold become `-`, as OpenAI does; without a suffix its field is empty (`ft:b:o::id`).

    Raises:
        InvalidName: the name of a checkpoint would be too long.
    """
    fields = (base, organization, (suffix or "")[:MAX_SUFFIX_LENGTH].strip().lower(), identifier)
    name = check("ft:" + ":".join(re.sub(r"[^A-Za-z0-9._/+-]+", "-", field) for field in fields))
    checkpoint(name, MAX_STEP)  # else the job would only fail when it is trained
    return name


def checkpoint(name: str, step: int) -> str:
    """Name of the checkpoint of `name` saved after optimizer step `step`."""
    return check(f"{name}:ckpt-step-{step}")
