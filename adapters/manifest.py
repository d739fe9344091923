"""The manifest: what an adapter needs to behave as trained, kept beside its weights and hashed with them."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.files import documents

FILENAME = "manifest.json"


class SamplingDefaults(BaseModel):
    """Sampling parameters for requests that give none; a field left out means OpenAI's default."""

    model_config = ConfigDict(extra="forbid")

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)


MAX_PROMPT_CHARACTERS = 100_000


class Manifest(BaseModel):
    """Behaviour that travels with the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_model: str | None = Field(default=None, description="Served name of the base the adapter was trained on.")
    chat_template: str | None = Field(default=None, description="Jinja template of the training; None: the base's own.")
    system_prompt: str | None = Field(
        default=None,
        max_length=MAX_PROMPT_CHARACTERS,
        description="Put first where a request has no system message.",
    )
    sampling: SamplingDefaults = SamplingDefaults()
    stop_token_ids: list[Annotated[int, Field(ge=0)]] = Field(
        default=[], max_length=16, description="Tokens that end an answer, besides those of template and base."
    )
    job_id: str | None = Field(default=None, description="Fine-tuning job that made it.")

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """The manifest in an adapter's folder; an empty one if there is no file.

        Raises:
            InvalidAdapter: the file is no manifest.
        """
        path = directory / FILENAME
        if not path.is_file():
            return cls()
        content = {key: value for key, value in documents.read(path).items() if value is not None}
        if not any(get_close_matches(key, cls.model_fields) for key in content):
            return cls()  # a file of another tool with the same name
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise documents.unfit(FILENAME, content, error) from error

    def write(self, directory: Path) -> None:
        """Write the manifest into an adapter's folder."""
        (directory / FILENAME).write_text(self.model_dump_json(indent=2, exclude_none=True), encoding="utf-8")
