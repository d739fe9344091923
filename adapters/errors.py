"""What can be wrong with an adapter.

AdapterError
├── InvalidName       (ValueError)   not a name that can be registered
├── InvalidAdapter    (ValueError)   files the engine must never see; `key` names the tensor, key or file
├── NameTaken         (ValueError)   the name already stands for other weights, or for an alias
├── InvalidAlias      (ValueError)   an alias cannot point where it should
├── AdapterInUse      (ValueError)   an alias points at it
├── TooManyAdapters   (ValueError)   the limit on registered adapters is reached
├── AdapterDamaged    (RuntimeError) the files in the store are no longer those that were registered
├── AdapterNotFound   (LookupError)  no adapter, and no alias, of that name
└── chat.template:   TemplateError (ValueError)
"""


class AdapterError(Exception):
    """Base of this package's own errors."""


class InvalidName(AdapterError, ValueError):
    """The string cannot be an adapter's name."""


class InvalidAdapter(AdapterError, ValueError):
    """The files are not a LoRA adapter of this base model.

    Args:
        key: tensor, config key or file at fault; the message begins with it.
        problem: what is wrong, what was expected, what to do.
    """

    def __init__(self, key: str, problem: str) -> None:
        key, problem = shown(key), shown(problem)
        super().__init__(key, problem)
        self.key = key
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}"


class NameTaken(AdapterError, ValueError):
    """The name is registered for other weights; versions are immutable."""


class InvalidAlias(AdapterError, ValueError):
    """An alias cannot point there."""


class AdapterInUse(AdapterError, ValueError):
    """An alias points at the adapter."""


class TooManyAdapters(AdapterError, ValueError):
    """The limit on registered adapters is reached."""


class AdapterDamaged(AdapterError, RuntimeError):
    """The files in the store are missing, or changed since they were registered."""


class AdapterNotFound(AdapterError, LookupError):
    """No adapter is registered under the name, which is the error's only argument."""

    def __init__(self, name: str) -> None:
        super().__init__(shown(name))


def shown(text: str, longest: int = 1000) -> str:
    """A client's value for a message: shortened, and with half surrogate pairs, which have no UTF-8, escaped."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= longest else f"{text[: longest // 2]} … {text[-longest // 2 :]}"
