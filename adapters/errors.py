"""What can be wrong with an adapter.

AdapterError
├── InvalidName       (ValueError)   not a name we can hold
├── InvalidAdapter    (ValueError)   files the engine must never see; `key` names the tensor, key or file
├── NameTaken         (ValueError)   the name already stands for other weights
└── AdapterNotFound   (LookupError)  no adapter of that name
"""


class AdapterError(Exception):
    """Base of everything this package raises on purpose."""


class InvalidName(AdapterError, ValueError):
    """The string cannot be an adapter's name."""


class InvalidAdapter(AdapterError, ValueError):
    """The files are not a LoRA adapter of this base model.

    Args:
        key: tensor, config key or file at fault; it stands in the message too.
        problem: what is wrong, what was expected, what to do.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(key, problem)
        self.key = key
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}"


class NameTaken(AdapterError, ValueError):
    """The name is registered for other weights; versions are immutable."""


class AdapterNotFound(AdapterError, LookupError):
    """No adapter is registered under the name, the only argument."""
