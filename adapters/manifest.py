"""The manifest: what an adapter needs to behave as trained, kept beside its weights and hashed with them."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.errors import InvalidAdapter

FILENAME = "manifest.json"
MAX_BYTES = 1_000_000


class SamplingDefaults(BaseModel):
    """Sampling used where a request names none; a field left out falls back to OpenAI's default."""

    model_config = ConfigDict(extra="forbid")

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)


class Manifest(BaseModel):
    """Behaviour that travels with the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_model: str | None = Field(default=None, description="Served name of the base the adapter was trained on.")
    chat_template: str | None = Field(default=None, description="Jinja template trained with; None: the base's own.")
    system_prompt: str | None = Field(default=None, description="Put first where a request has no system message.")
    sampling: SamplingDefaults = SamplingDefaults()
    job_id: str | None = Field(default=None, description="Fine-tuning job that made it.")

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """The manifest of an adapter's folder; an empty one where the adapter came without.

        Raises:
            InvalidAdapter: the file is no manifest.
        """
        path = directory / FILENAME
        if not path.is_file():
            return cls()
        if path.stat().st_size > MAX_BYTES:
            raise InvalidAdapter(FILENAME, f"has {path.stat().st_size} bytes; at most {MAX_BYTES} are allowed")
        try:
            return cls.model_validate(json.loads(path.read_bytes()))
        except (ValueError, RecursionError) as error:
            detail = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "not JSON"}
            raise InvalidAdapter(".".join([FILENAME, *map(str, detail["loc"])]), str(detail["msg"])) from error

    def write(self, directory: Path) -> None:
        """Write it into an adapter's folder."""
        (directory / FILENAME).write_text(self.model_dump_json(indent=2, exclude_none=True), encoding="utf-8")
