"""What the admin API's JSON bodies have in common: unknown fields are refused, and null means absent."""

from training.wire import Description as Body
from training.wire import without_nulls

__all__ = ["Body", "without_nulls"]
