"""A fine-tuning job's status, in OpenAI's words; apart, for the command line must not wait for a database."""

from enum import StrEnum


class Status(StrEnum):
    """queued -> validating_files -> running -> an end; paused from any of the three, and back to queued."""

    QUEUED = "queued"
    VALIDATING = "validating_files"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = (Status.VALIDATING, Status.RUNNING)
ENDED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
