"""The server's own errors; http/statuses.py says how each is answered.

ServerError
├── InvalidRequest        (ValueError)    the request cannot be done; `param` names the field
│   ├── ContextLengthExceeded             prompt and answer do not fit
│   └── Unsupported                       a field that OpenAI supports and this server does not
├── NotFound              (LookupError)   no object of that id
├── TooLarge              (ValueError)    over a limit on size or number
├── Unauthorized                          no key, or one that does not exist
├── Forbidden                             the key may not do this
├── RateLimited           (RuntimeError)  over a limit on requests or work at a time
├── ReaderTooSlow         (TimeoutError)  a stream's events waited too long for their reader
├── AdapterLoadFailed     (RuntimeError)  the engine refused an adapter that had passed validation
├── EngineUnavailable     (RuntimeError)  not started yet, stopping, or dead
└── DataFolderBusy        (RuntimeError)  another server works on the data folder
"""


class ServerError(Exception):
    """Base of the server's errors."""


class InvalidRequest(ServerError, ValueError):
    """The request cannot be done, or not in the object's present state.

    Attributes:
        param: the field at fault.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.param = param

    def __str__(self) -> str:
        return str(self.args[0])


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer do not fit into the model's context."""


class Unsupported(InvalidRequest):
    """A field that OpenAI supports and this server does not; an answer that ignored it would be wrong."""

    def __init__(self, field: str, why: str = "") -> None:
        super().__init__(f"'{field}' is not supported by this server; leave it out. {why}".strip(), field)


class NotFound(ServerError, LookupError):
    """There is no object of that id."""


class TooLarge(ServerError, ValueError):
    """Over a limit on size or number."""


class Unauthorized(ServerError):
    """No key, or one that does not exist."""


class Forbidden(ServerError):
    """The key may not do this."""


class RateLimited(ServerError, RuntimeError):
    """Over a limit on requests or work at a time.

    Attributes:
        kind: "requests" or "tokens"; the error object's type.
        retry_seconds: seconds until there is room again; a minute if a queue is full.
    """

    def __init__(self, message: str, kind: str, retry_seconds: float = 60.0) -> None:
        super().__init__(message, kind, retry_seconds)
        self.kind = kind
        self.retry_seconds = retry_seconds

    def __str__(self) -> str:
        return str(self.args[0])


class ReaderTooSlow(ServerError, TimeoutError):
    """A stream's events waited too long for their reader."""


class AdapterLoadFailed(ServerError, RuntimeError):
    """The engine refused an adapter that had passed validation."""


class EngineUnavailable(ServerError, RuntimeError):
    """The engine is starting, stopping or dead."""


class DataFolderBusy(ServerError, RuntimeError):
    """Another server works on the data folder."""
