"""A job as a client asks for it, and what its metadata say to Tuneport."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters import names
from server.state.errors import InvalidState
from training.job import Gate, Method, Preference, Reinforcement, Supervised, WandbIntegration

Label = Annotated[str, Field(max_length=512)]

GATE = "gate."  # metadata keys: gate.alias, gate.min_gain, gate.min_score, gate.max_kl, gate.max_retention_loss
RETENTION_FILE = "retention_file"
ACCEPT_FINDINGS = "accept_findings"


class MethodRequest(BaseModel):
    """`method`: its type, and the configuration of that type beside it."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: dict[str, Any] | None = None
    dpo: dict[str, Any] | None = None
    reinforcement: dict[str, Any] | None = None


class IntegrationRequest(BaseModel):
    """`integrations[]`; OpenAI has one kind."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["wandb"]
    wandb: WandbIntegration


class JobRequest(BaseModel):
    """A job to create; `hyperparameters` beside `method` is the API's old form."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=names.MAX_SUFFIX_LENGTH)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    method: MethodRequest | None = None
    hyperparameters: dict[str, Any] | None = None
    metadata: Annotated[dict[Annotated[str, Field(max_length=64)], Label], Field(max_length=16)] | None = None
    integrations: Annotated[list[IntegrationRequest], Field(max_length=5)] | None = None

    def wanted(self) -> Method:
        """The method, in whichever form it came.

        Raises:
            InvalidState: a field is wrong; `param` says which.
        """
        kinds: dict[str, type[Supervised | Preference | Reinforcement]] = {
            "supervised": Supervised,
            "dpo": Preference,
            "reinforcement": Reinforcement,
        }
        kind = self.method.type if self.method else "supervised"
        given = getattr(self.method, kind, None) if self.method else {"hyperparameters": self.hyperparameters}
        place = f"method.{kind}" if self.method else ""
        content = {name: value for name, value in (given or {}).items() if value is not None}
        if kind == "reinforcement" and "grader" not in content:
            raise InvalidState("a reinforcement job needs a grader", "method.reinforcement.grader")
        try:
            return kinds[kind].model_validate(_without_nulls(content))
        except ValidationError as error:
            first = error.errors()[0]
            param = ".".join([*([place] if place else []), *_path(first["loc"])])
            raise InvalidState(f"{param}: {first['msg'].removeprefix('Value error, ')}", param) from None

    def gate(self, default: Gate) -> Gate:
        """The server's thresholds, with those of the metadata over them.

        Raises:
            InvalidState: an unknown threshold, or no number.
        """
        given = {key.removeprefix(GATE): value for key, value in (self.metadata or {}).items() if key.startswith(GATE)}
        try:
            gate = Gate.model_validate(default.model_dump() | given)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            known = ", ".join(GATE + field for field in Gate.model_fields)
            raise InvalidState(
                f"metadata.{GATE}{name}: {first['msg']}; there are {known}", f"metadata.{GATE}{name}"
            ) from None
        if gate.alias is not None:
            names.check(gate.alias)
        return gate

    def label(self, key: str) -> str | None:
        """A metadata value."""
        return (self.metadata or {}).get(key)


def _without_nulls(content: dict[str, Any]) -> dict[str, Any]:
    """The SDK sends null for what was not set."""
    hyperparameters = content.get("hyperparameters")
    if isinstance(hyperparameters, dict):
        return {**content, "hyperparameters": {k: v for k, v in hyperparameters.items() if v is not None}}
    return content


def _path(location: tuple[int | str, ...]) -> list[str]:
    """A pydantic location without the names of union members, which are no part of the request."""
    unions = ("int", "float", "constrained-int", "constrained-float", "literal['auto']")
    return [str(part) for part in location if str(part) not in unions and "[" not in str(part)]
