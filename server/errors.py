"""What state can answer.

StateError
├── NotFound      (LookupError)  no file or job of that id
├── InvalidState  (ValueError)   the object is not in a state that allows it; `param` names the field
└── TooLarge      (ValueError)   over a limit
"""


class StateError(Exception):
    """Base of this package's errors."""


class NotFound(StateError, LookupError):
    """There is no such object."""


class InvalidState(StateError, ValueError):
    """The object does not allow it now, or a field refers to the wrong one."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.param = param

    def __str__(self) -> str:
        return str(self.args[0])


class TooLarge(StateError, ValueError):
    """Over a limit of size."""
