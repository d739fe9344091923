"""A client's request for a job, and the settings for Tuneport in its metadata."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from adapters import names
from adapters.errors import InvalidName
from server.errors import InvalidRequest
from server.http.wording import told
from server.openai.wire import Metadata
from training.job import Gate, Method, Preference, Reinforcement, Supervised, WandbIntegration
from training.kinds import Kind
from training.wire import Description

GATE = "gate."  # metadata keys: gate.alias, gate.min_gain, gate.min_score, gate.max_kl, gate.max_retention_loss
RETENTION_FILE = "retention_file"
ACCEPT_FINDINGS = "accept_findings"

_METHODS: dict[str, type[Supervised | Preference | Reinforcement]] = {
    "supervised": Supervised,
    "dpo": Preference,
    "reinforcement": Reinforcement,
}


class MethodRequest(Description):
    """`method`: its type, and the configuration for that type."""

    type: Kind
    supervised: dict[str, Any] | None = None
    dpo: dict[str, Any] | None = None
    reinforcement: dict[str, Any] | None = None


class IntegrationRequest(Description):
    """`integrations[]`; there is one kind, as at OpenAI."""

    type: Literal["wandb"]
    wandb: WandbIntegration


class JobRequest(Description):
    """A request for a job; top-level `hyperparameters` are the API's old form."""

    model_config = ConfigDict(protected_namespaces=())

    model: Annotated[str, Field(max_length=names.MAX_LENGTH)]
    training_file: str
    validation_file: str | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=names.MAX_SUFFIX_LENGTH)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    method: MethodRequest | None = None
    hyperparameters: dict[str, Any] | None = None
    metadata: Metadata | None = None
    integrations: Annotated[list[IntegrationRequest], Field(max_length=5)] | None = None

    def wanted(self) -> Method:
        """The method, from the old or the new form.

        Raises:
            InvalidRequest: a field is wrong, has no effect where it stands, or has two different values.
        """
        kind = self.method.type if self.method else "supervised"
        for other in _METHODS.keys() - {kind}:
            if self.method and _without_nulls(getattr(self.method, other)):
                raise InvalidRequest(
                    f"method.{other} has no effect, for method.type is {kind!r}; leave it out, or change the type",
                    f"method.{other}",
                )
        content = dict(getattr(self.method, kind) or {}) if self.method else {}
        if kind == "reinforcement" and content.get("grader") is None:
            raise InvalidRequest("a reinforcement job needs a grader", "method.reinforcement.grader")
        old = _without_nulls(self.hyperparameters)
        if old:
            content["hyperparameters"] = _joined(old, content.get("hyperparameters"), kind)
        try:
            return _METHODS[kind].model_validate(content)
        except ValidationError as error:
            raise _refused(error, content, ["method", kind] if self.method else [], old) from None

    def gate(self, default: Gate) -> Gate:
        """The server's thresholds, overridden by those in the metadata.

        Raises:
            InvalidRequest: a threshold is unknown or no number.
        """
        given = {key.removeprefix(GATE): value for key, value in (self.metadata or {}).items() if key.startswith(GATE)}
        try:
            gate = Gate.model_validate(default.model_dump() | given)
        except ValidationError as error:
            labels = {f"{GATE}{name}": value for name, value in given.items()}
            placed = [{**one, "loc": ("body", "metadata", f"{GATE}{one['loc'][0]}")} for one in error.errors()]
            message, _, param = told(placed, {"metadata": labels})
            known = ", ".join(GATE + field for field in Gate.model_fields)
            raise InvalidRequest(f"{message.removesuffix('.')}; there are {known}", param) from None
        if gate.alias is not None:
            try:
                names.check(gate.alias)
            except InvalidName as error:
                raise InvalidRequest(f"{GATE}alias: {error}", f"metadata.{GATE}alias") from error
        return gate

    def accepts_findings(self) -> bool:
        """Whether to train even if secrets or leakage are found in the data.

        Raises:
            InvalidRequest: the value is neither true nor false.
        """
        said = self.label(ACCEPT_FINDINGS)
        if said is not None and said.lower() not in ("true", "false"):
            raise InvalidRequest(
                f"{ACCEPT_FINDINGS} is {said!r}; expected 'true' or 'false'", f"metadata.{ACCEPT_FINDINGS}"
            )
        return said is not None and said.lower() == "true"

    def needs_admin(self, gate: Gate, default: Gate) -> str | None:
        """The first metadata key that would change what other users are served, and so needs an admin key; or None.

        These are an alias other than the server's, and a threshold that is easier to pass than the server's.
        """
        for name, value in gate:
            usual = getattr(default, name)
            stricter = (name.startswith("min_") and value > usual) or (name.startswith("max_") and value < usual)
            if value != usual and not stricter:
                return f"metadata.{GATE}{name}"
        return None

    def label(self, key: str) -> str | None:
        """The metadata value of a key, or None."""
        return (self.metadata or {}).get(key)


def _joined(old: dict[str, Any], new: Any, kind: str) -> Any:
    """The hyperparameters of both forms joined; a job's object that a client sends back has both.

    Raises:
        InvalidRequest: they disagree.
    """
    if new is not None and not isinstance(new, dict):
        return new  # the method's own check refuses it
    given = _without_nulls(new)
    for name, value in old.items():
        if given.get(name, value) != value:
            raise InvalidRequest(
                f"hyperparameters.{name} is {value!r}, but {given[name]!r} in method.{kind}.hyperparameters; keep one",
                f"hyperparameters.{name}",
            )
    return {**old, **given}


def _without_nulls(content: dict[str, Any] | None) -> dict[str, Any]:
    """The object without nulls, at any depth; the SDK's objects have null for fields that were not set."""
    found: dict[str, Any] = {}
    for key, value in (content or {}).items():
        kept = _without_nulls(value) if isinstance(value, dict) else value
        if kept is not None and kept != {}:
            found[key] = kept
    return found


def _refused(error: ValidationError, content: dict[str, Any], place: list[str], old: dict[str, Any]) -> InvalidRequest:
    """The error for a wrong method configuration, in terms of the request.

    Args:
        place: path of the configuration in the request.
        old: the request's top-level hyperparameters.
    """
    first = error.errors()[0]["loc"]
    if first[:1] == ("hyperparameters",) and first[1:2] and first[1] in old:
        place = []
    body: dict[str, Any] = content
    for name in reversed(place):
        body = {name: body}
    message, _, param = told([{**one, "loc": ("body", *place, *one["loc"])} for one in error.errors()], body)
    return InvalidRequest(message, param)
