"""A fine-tuning job's status, in OpenAI's words; a separate module, so that the command line imports no database."""

from enum import StrEnum


class Status(StrEnum):
    """queued -> validating_files -> running -> an end; each of these three can be paused, and goes on as queued."""

    QUEUED = "queued"
    VALIDATING = "validating_files"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = (Status.VALIDATING, Status.RUNNING)
ENDED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
